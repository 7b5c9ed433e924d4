# Pinned tools and Kubernetes binaries, built from the Go module proxy into bin/. Each is a file target that depends on
# its module's go.mod and go.sum, so that a second call costs nothing and a version bump rebuilds just what it changes.

K8S_VERSION := v1.36.3
# The modules are pinned to these versions; the flags only tell the binaries which version they are.
k8s_version_flags = -X k8s.io/component-base/version.gitVersion=$(K8S_VERSION) \
	-X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36 \
	-X k8s.io/component-base/version.gitTreeState=clean

envtest_binaries := bin/k8s/etcd bin/k8s/kube-apiserver bin/k8s/kubectl
k8s_components := kube-apiserver kubectl kube-controller-manager kubelet kube-scheduler kube-proxy
k8s_binaries := bin/k8s/etcd $(addprefix bin/k8s/,$(k8s_components)) bin/k8s/coredns
tool_binaries := bin/controller-gen bin/kustomize bin/golangci-lint

# $(call build_tool,MODULE FOLDER,PACKAGE,LINKER FLAGS): a half-written binary never bears the final name.
define build_tool
@echo "building $@ ($(2))"
@mkdir -p $(@D)
@start=$$(date +%s); \
	CGO_ENABLED=0 go -C $(1) build -trimpath -ldflags "-s -w $(3)" -o $(CURDIR)/$@.tmp $(2) && \
	mv $@.tmp $@ && echo "built $@ in $$(( $$(date +%s) - start )) s"
endef

##@ Tools and the local cluster

.PHONY: tools
tools: $(tool_binaries) ## Build controller-gen, kustomize and golangci-lint into bin/.

.PHONY: envtest-binaries
envtest-binaries: $(envtest_binaries) ## Build the API server, etcd and kubectl that envtest needs into bin/k8s/.

.PHONY: k8s-binaries
k8s-binaries: $(k8s_binaries) ## Build every Kubernetes binary of the local cluster into bin/k8s/.

bin/controller-gen: hack/tools/go.mod hack/tools/go.sum
	$(call build_tool,hack/tools,sigs.k8s.io/controller-tools/cmd/controller-gen)

bin/kustomize: hack/tools/go.mod hack/tools/go.sum
	$(call build_tool,hack/tools,sigs.k8s.io/kustomize/kustomize/v5)

bin/golangci-lint: hack/tools/golangci-lint/go.mod hack/tools/golangci-lint/go.sum
	$(call build_tool,hack/tools/golangci-lint,github.com/golangci/golangci-lint/v2/cmd/golangci-lint)

bin/k8s/etcd: hack/etcd/go.mod hack/etcd/go.sum
	$(call build_tool,hack/etcd,go.etcd.io/etcd/server/v3)

bin/k8s/coredns: hack/coredns/go.mod hack/coredns/go.sum
	$(call build_tool,hack/coredns,github.com/coredns/coredns)

$(addprefix bin/k8s/,$(k8s_components)): hack/kubernetes/go.mod hack/kubernetes/go.sum
	$(call build_tool,hack/kubernetes,k8s.io/kubernetes/cmd/$(@F),$(k8s_version_flags))
