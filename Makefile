# Dory. `make help` lists what there is; `make demo` and `make test` are all that a newcomer needs.
# Everything is built from source by Go: tools and Kubernetes land in bin/, what runs locally in .run/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
# A target that fails half-way must not look finished.
.DELETE_ON_ERROR:

# The images of the operator and of the sample processor. Change them to what your cluster can pull.
DORY_IMAGE ?= dory-operator:dev
DORY_COUNTER_IMAGE ?= dory-counter:dev

# Which packages `make test` and `make deflake` run, and with which further flags of go test.
PKG ?= ./...
TESTFLAGS ?=
# How many packages are tested at a time. Those with an API server or a PostgreSQL take a core and a gigabyte each.
TEST_PARALLEL ?= 2

controller_gen := bin/controller-gen
# Where the generators read: the types, and the code that carries +kubebuilder:rbac markers.
api_paths := paths=./api/...
rbac_paths := paths=./internal/...
test_packages := postgresql gcc libc6-dev python3

##@ Run it

.PHONY: demo
demo: ## Bring up a local cluster, install Dory as a user would, and show what it does. Needs root.
	@hack/demo/demo

.PHONY: demo-down
demo-down: ## Remove what the demo left: Dory from a cluster of yours, or the whole local cluster.
	@hack/demo/demo down

.PHONY: install
install: ## Install Dory into the cluster of the current kubectl context, or upgrade it (DORY_IMAGE=registry/dory-operator:1.0).
	@DORY_IMAGE=$(DORY_IMAGE) hack/install/install install

.PHONY: uninstall
uninstall: ## Remove the operator once its processors have saved their state and ended (PROCESSORS=keep|delete, PURGE=1).
	@PROCESSORS=$(PROCESSORS) PURGE=$(PURGE) hack/install/install uninstall

##@ Test it

.PHONY: test
test: test-deps ## Run vet, all unit tests and all tests on a real API server and PostgreSQL, with the race detector.
	@echo "go vet"
	@go vet -tags e2e $(PKG)
	@echo "go test -race (PKG=$(PKG))"
	@KUBEBUILDER_ASSETS=$(CURDIR)/bin/k8s KUBEBUILDER_CONTROLPLANE_START_TIMEOUT=2m go test -race -shuffle=on -timeout 20m -p $(TEST_PARALLEL) $(TESTFLAGS) $(PKG)
	@if [ "$(PKG)" = ./... ]; then $(MAKE) --no-print-directory test-hack; fi

.PHONY: test-deps
test-deps: envtest-binaries ## Install what the tests need: Debian packages, and the API server and etcd in bin/k8s.
	@hack/debs.sh $(test_packages)

.PHONY: test-e2e
test-e2e: ## Run the end-to-end suite on a local cluster with real kubelets, and remove the cluster. Needs root.
	@test/e2e/run

.PHONY: deflake
deflake: test-deps ## Run the tests again and again, in random order, until one fails or RUNS are over (PKG, RUNS=20).
	@for run in $$(seq $(or $(RUNS),20)); do \
		echo "run $$run"; \
		KUBEBUILDER_ASSETS=$(CURDIR)/bin/k8s go test -race -count=1 -shuffle=on -timeout 20m -p $(TEST_PARALLEL) $(TESTFLAGS) $(PKG); \
	done

.PHONY: lint
lint: bin/golangci-lint ## Run the linters of .golangci.yml.
	@bin/golangci-lint run --allow-parallel-runners ./...
	@cd hack && ../bin/golangci-lint run --allow-parallel-runners ./...

.PHONY: ci
ci: ## Run everything that must pass before a change goes in.
	@.ci/run

##@ Change it

.PHONY: generate
generate: bin/controller-gen ## Regenerate the deep copies of the API types.
	@$(controller_gen) object:headerFile=hack/boilerplate.go.txt $(api_paths)

.PHONY: manifests
manifests: bin/controller-gen ## Regenerate the CRDs and the operator's ClusterRole from the markers in the code.
	@$(controller_gen) crd $(api_paths) output:crd:dir=config/crd/bases
	@$(controller_gen) rbac:roleName=dory-operator $(rbac_paths) output:rbac:dir=config/rbac

.PHONY: check-generated
check-generated: bin/controller-gen ## Say whether everything generated is current, without changing anything.
	@fresh=$$(mktemp -d); trap 'rm -rf "$$fresh"' EXIT; \
	$(controller_gen) crd $(api_paths) output:crd:dir=$$fresh/crd; \
	$(controller_gen) rbac:roleName=dory-operator $(rbac_paths) output:rbac:dir=$$fresh/rbac; \
	$(controller_gen) object:headerFile=hack/boilerplate.go.txt $(api_paths) output:object:dir=$$fresh/api; \
	stale=0; \
	diff -ru config/crd/bases $$fresh/crd || stale=1; \
	diff -u config/rbac/role.yaml $$fresh/rbac/role.yaml || stale=1; \
	diff -u api/v1alpha1/zz_generated.deepcopy.go $$fresh/api/zz_generated.deepcopy.go || stale=1; \
	if [ $$stale = 1 ]; then echo "error: generated files are stale (see above): run make generate manifests, and commit" >&2; exit 1; fi; \
	echo "generated files are current"

.PHONY: fmt
fmt: bin/golangci-lint ## Format the code.
	@bin/golangci-lint fmt ./...
	@cd hack && ../bin/golangci-lint fmt ./...

##@ Build it

.PHONY: build
build: ## Build the operator into bin/.
	@CGO_ENABLED=0 go build -trimpath -o bin/dory-operator ./cmd/dory-operator

.PHONY: images
images: bin/image ## Build the images of the operator and the sample processor into bin/images/, without a container engine.
	@mkdir -p bin/images
	@CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/images/dory-operator ./cmd/dory-operator
	@CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o bin/images/counter ./examples/counter
	@bin/image -binary bin/images/dory-operator -name $(DORY_IMAGE) -cacerts -output bin/images/operator.tar
	@bin/image -binary bin/images/counter -name $(DORY_COUNTER_IMAGE) -cacerts -output bin/images/counter.tar
	@ls -sh bin/images/*.tar

.PHONY: docker-images
docker-images: ## Build the same images with Docker.
	docker build --build-arg PACKAGE=./cmd/dory-operator -t $(DORY_IMAGE) .
	docker build --build-arg PACKAGE=./examples/counter -t $(DORY_COUNTER_IMAGE) .

.PHONY: clean
clean: ## Remove everything that was built. Stop the cluster first.
	@rm -rf bin

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN { FS = ":.*## "; print "usage: make TARGET" } \
		/^##@ / { heading = substr($$0, 5); if (!(heading in targets)) order[++headings] = heading } \
		/^[a-zA-Z0-9_-]+:.*## / { targets[heading] = targets[heading] sprintf("  %-18s %s\n", $$1, $$2) } \
		END { for (i = 1; i <= headings; i++) printf "\n%s\n%s", order[i], targets[order[i]] }' $(MAKEFILE_LIST)

include $(wildcard hack/*.mk)
