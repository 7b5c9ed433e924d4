# The real Karpenter, with its provider of nodes that kwok plays.

bin/karpenter: hack/karpenter/go.mod hack/karpenter/go.sum
	$(call build_tool,hack/karpenter,sigs.k8s.io/karpenter/kwok)

# Amazon's provider cannot run here. Its EC2NodeClass is what the shipped one is checked against.
karpenter_aws := github.com/aws/karpenter-provider-aws@v1.14.1

bin/karpenter-crds: hack/karpenter/go.mod hack/karpenter/go.sum hack/provisioning.mk
	@mkdir -p $@
	@aws=$$(go mod download -json $(karpenter_aws) | sed -n 's/^\t"Dir": "\(.*\)",$$/\1/p'); \
		install -m 644 "$$aws"/pkg/apis/crds/karpenter.k8s.aws_ec2nodeclasses.yaml $@
	@karpenter=$$(go -C hack/karpenter list -m -f '{{.Dir}}' sigs.k8s.io/karpenter); \
		install -m 644 "$$karpenter"/pkg/apis/crds/*.yaml "$$karpenter"/kwok/apis/crds/*.yaml $@
	@touch $@

##@ Test it

.PHONY: test-provisioning
test-provisioning: bench-deps bin/karpenter bin/karpenter-crds ## Let the real Karpenter make nodes for processors that fit nowhere, and placement bind them.
	@echo "go test (test/provisioning: Karpenter beside placement)"
	@go test -tags e2e -count=1 -timeout 15m ./test/provisioning $(TESTFLAGS)
