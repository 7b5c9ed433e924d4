# Which manifests to apply for an image. Sourced.
# shellcheck shell=bash

# manifests is config/default or, where DORY_IMAGE names another image, a kustomization with that, as a user would write it.
manifests() {
	local image=${DORY_IMAGE:-dory-operator:dev} directory=.run/install
	if [ "$image" = dory-operator:dev ]; then
		echo config/default
		return
	fi
	mkdir -p "$directory"
	cat >"$directory/kustomization.yaml" <<-YAML
		apiVersion: kustomize.config.k8s.io/v1beta1
		kind: Kustomization
		resources: [../../config/default]
		images:
		- name: dory-operator
		  newName: ${image%:*}
		  newTag: "${image##*:}"
	YAML
	echo "$directory"
}
