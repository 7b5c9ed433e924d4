# The benchmarks, on real parts. Each prints one line of JSON last.
# BENCH_N is how many rows (bench-sync), objects (bench-scale), processors (bench-checkpoint), evictions (bench-webhook) or live
# moves of each size (bench-handoff); BENCH_FLAGS goes to the program as it is, such as BENCH_FLAGS="-profiles DIR". bin/bench/sync --help
# and so on list the flags.

BENCH_N ?=
BENCH_NODES ?= 500
BENCH_FLAGS ?=

kwok_stages := bin/kwok-stages/node-initialize.yaml bin/kwok-stages/pod-ready.yaml
bench_k8s := bin/k8s/etcd $(addprefix bin/k8s/,kube-apiserver kubectl kube-controller-manager kube-scheduler)
bench_short := -nodes 50

bin/kwok: hack/kwok/go.mod hack/kwok/go.sum
	$(call build_tool,hack/kwok,sigs.k8s.io/kwok/cmd/kwok)

# How nodes and pods come up is kwok's own word, from the version of its binary.
$(kwok_stages) &: hack/kwok/go.mod hack/kwok/go.sum
	@mkdir -p bin/kwok-stages
	@kwok=$$(go -C hack/kwok list -m -f '{{.Dir}}' sigs.k8s.io/kwok); \
		install -m 644 "$$kwok/kustomize/stage/node/fast/node-initialize.yaml" "$$kwok/kustomize/stage/pod/fast/pod-ready.yaml" bin/kwok-stages/

##@ Measure it

.PHONY: bench-sync
bench-sync: bench-deps ## Measure rows to objects and pods, cold start and rest, with 10,000 rows (BENCH_N).
	@bin/bench/sync -rows $(or $(BENCH_N),10000) -nodes $(BENCH_NODES) $(BENCH_FLAGS)

.PHONY: bench-scale
bench-scale: bench-deps ## Measure 2000 (BENCH_N) Processors against as many StatefulSets.
	@bin/bench/scale -n $(or $(BENCH_N),2000) -nodes $(BENCH_NODES) $(BENCH_FLAGS)

.PHONY: bench-checkpoint
bench-checkpoint: bench-deps ## Measure what checkpoints of 2000 (BENCH_N) processors cost, and how old they get.
	@bin/bench/checkpoint -processors $(or $(BENCH_N),2000) $(BENCH_FLAGS)

.PHONY: bench-handoff
bench-handoff: ## Measure the pause of moves on a local cluster with real kubelets, 100 (BENCH_N) of each size. Needs root.
	@test/bench/handoff/run -moves $(or $(BENCH_N),100) $(BENCH_FLAGS)

.PHONY: bench-webhook
bench-webhook: bench-deps ## Measure the answers to 1000 (BENCH_N) evictions at once, among 2000 processors.
	@bin/bench/webhook -evictions $(or $(BENCH_N),1000) $(BENCH_FLAGS)

.PHONY: bench-drain
bench-drain: ## Measure drains of a node with 30 processors by the upstream kubectl, 10 (BENCH_N) rounds there and back. Needs root.
	@test/bench/drain/run -rounds $(or $(BENCH_N),10) $(BENCH_FLAGS)

.PHONY: bench-short
bench-short: bench-deps ## Run the benchmarks that need no cluster in small, to see that they run; their figures say little.
	@bin/bench/sync -rows 300 -changing 15s -resting 15s $(bench_short)
	@bin/bench/scale -n 300 $(bench_short)
	@bin/bench/checkpoint -processors 100 -interval 2s
	@bin/bench/webhook -processors 100 -evictions 50 -others 20 $(bench_short)
	@bin/bench/placement -pods 200 -rounds 1 $(bench_short)

.PHONY: bench-deps
bench-deps: $(bench_k8s) bin/kwok $(kwok_stages) build
	@hack/debs.sh $(test_packages)
	@mkdir -p bin/bench
	@CGO_ENABLED=0 go build -trimpath -o bin/bench/ ./test/bench/sync ./test/bench/scale ./test/bench/checkpoint ./test/bench/webhook ./test/bench/placement

# The engine of placement alone, and packing beside the real kube-scheduler, which is built in a module of its own.
.PHONY: bench-engine
bench-engine: ## Measure the placement engine alone: decisions and events a second with 5000 nodes and 50,000 pods, and its memory.
	@mkdir -p bin/bench
	@CGO_ENABLED=0 go build -trimpath -o bin/bench/engine ./test/bench/engine
	@bin/bench/engine $(BENCH_FLAGS)

.PHONY: bench-packing
bench-packing: ## Measure on how many nodes traces of pods fit, through Dory and through kube-scheduler. Building that takes a minute once.
	@mkdir -p bin/bench
	@CGO_ENABLED=0 go build -C test/oracle -trimpath -o $(CURDIR)/bin/bench/packing ./packing
	@bin/bench/packing $(BENCH_FLAGS)

.PHONY: bench-placement
bench-placement: bench-deps ## Measure placement beside kube-scheduler: 5000 (BENCH_N) pods in each of 3 rounds on 500 (BENCH_NODES) nodes.
	@bin/bench/placement -pods $(or $(BENCH_N),5000) -nodes $(BENCH_NODES) $(BENCH_FLAGS)

##@ Test it

.PHONY: test-oracle
test-oracle: ## Compare the engine's decisions with the filters of the real kube-scheduler. Building that takes a minute once.
	@echo "go test (test/oracle: the engine's decisions beside kube-scheduler's filters)"
	@go test -C test/oracle ./... -rapid.checks=$(or $(ORACLE_CHECKS),2000)
