# The image of any program of this repository, by default the operator:
#
#   docker build -t dory-operator:dev .
#   docker build --build-arg PACKAGE=./examples/counter -t dory-counter:dev .
#
# Where there is no container engine, `make images` builds the same from Go alone.
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
# Modules first: they change less often than the code, and stay cached.
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG PACKAGE=./cmd/dory-operator TARGETOS TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w" -o /program "$PACKAGE"

FROM gcr.io/distroless/static:nonroot
COPY --from=build /program /program
USER 65532:65532
ENTRYPOINT ["/program"]
