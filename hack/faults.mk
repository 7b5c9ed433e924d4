# Faults: test/faults breaks the operator's own binary and what surrounds it. `make test` runs it with all others.

# How often the operator is killed during 200 creations: 20 times a round.
ROUNDS ?= 20

##@ Test it

.PHONY: test-faults
test-faults: test-deps ## Run the faults alone, with ROUNDS=20 times 20 kills; FAULTS_SEED=… repeats a run.
	@FAULTS_ROUNDS=$(ROUNDS) KUBEBUILDER_ASSETS=$(CURDIR)/bin/k8s go test -race -count=1 -timeout 60m -v $(TESTFLAGS) ./test/faults
