# The local cluster. CLUSTER_FLAGS go to "cluster up"; bin/cluster --help lists everything else that it can do.

CLUSTER_FLAGS ?=

hack_sources := hack/go.mod hack/go.sum hack/debs.sh hack/debs.go
cluster_sources := $(hack_sources) $(wildcard hack/cluster/*.go hack/internal/*/*.go)

bin/cluster: $(cluster_sources)
	@mkdir -p bin
	@echo "building $@"; CGO_ENABLED=0 go -C hack build -trimpath -o $(CURDIR)/bin/cluster ./cluster

bin/image: $(hack_sources) $(wildcard hack/image/*.go)
	@mkdir -p bin
	@echo "building $@"; CGO_ENABLED=0 go -C hack build -trimpath -o $(CURDIR)/bin/image ./image

bin/pause: hack/pause/main.go hack/go.mod
	@mkdir -p bin
	@echo "building $@"; CGO_ENABLED=0 go -C hack build -trimpath -ldflags "-s -w" -o $(CURDIR)/bin/pause ./pause

bin/pause.tar: bin/pause bin/image
	bin/image -binary bin/pause -name dory-pause:1 -output $@

##@ Tools and the local cluster

.PHONY: cluster-up
cluster-up: k8s-binaries bin/cluster bin/pause.tar ## Bring up (or repair) a real Kubernetes cluster on this machine, without Docker; needs root.
	@bin/cluster up $(CLUSTER_FLAGS)

.PHONY: cluster-down
cluster-down: bin/cluster ## Stop the local cluster and remove everything that it made.
	@bin/cluster down

.PHONY: cluster-status
cluster-status: bin/cluster ## Say what of the local cluster runs, and what does not.
	@bin/cluster status

##@ Test it

.PHONY: test-hack
test-hack: ## Run the unit tests of the local cluster and the image builder.
	go -C hack vet -tags cluster ./...
	go -C hack test -race ./...

.PHONY: test-cluster
test-cluster: k8s-binaries bin/cluster bin/pause.tar ## Bring a cluster up and down and check that it leaves nothing behind; needs root and no cluster.
	go -C hack test -tags cluster -count=1 -timeout 15m -v -run TestCluster ./cluster
