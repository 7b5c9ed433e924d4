# The real Karpenter, with its provider of nodes that kwok plays.

bin/karpenter: hack/karpenter/go.mod hack/karpenter/go.sum
	$(call build_tool,hack/karpenter,sigs.k8s.io/karpenter/kwok)

bin/karpenter-crds: hack/karpenter/go.mod hack/karpenter/go.sum
	@mkdir -p $@
	@karpenter=$$(go -C hack/karpenter list -m -f '{{.Dir}}' sigs.k8s.io/karpenter); \
		install -m 644 "$$karpenter"/pkg/apis/crds/*.yaml "$$karpenter"/kwok/apis/crds/*.yaml $@
	@touch $@

.PHONY: test-provisioning
test-provisioning: bench-deps bin/karpenter bin/karpenter-crds ## Let the real Karpenter make nodes for processors that fit nowhere, and placement bind them.
	@echo "go test (test/provisioning: Karpenter beside placement)"
	@go test -tags e2e -count=1 -timeout 15m ./test/provisioning $(TESTFLAGS)
