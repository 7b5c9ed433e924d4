// The local cluster and the image builder: kept out of the operator's module, as the operator needs none of it.
module github.com/dory-io/dory/hack

go 1.26.0

require github.com/google/go-containerregistry v0.22.1

require (
	github.com/klauspost/compress v1.19.2 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	github.com/opencontainers/image-spec v1.1.1 // indirect
)
