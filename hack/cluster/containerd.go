package main

import (
	"context"
	"fmt"

	"github.com/dory-io/dory/hack/internal/host"
	"github.com/dory-io/dory/hack/internal/process"
	"github.com/dory-io/dory/hack/internal/topology"
)

func containerdName(n topology.Node) string { return "containerd-" + n.Name }

func (c *cluster) containerd(n topology.Node) (component, error) {
	config, cni := n.Dir()+"/containerd.toml", n.Dir()+"/cni/10-dory.conflist"
	if err := writeFile(config, []byte(containerdConfig(n)), 0o644); err != nil {
		return component{}, err
	}
	if err := writeFile(cni, []byte(cniConfig(n)), 0o644); err != nil {
		return component{}, err
	}
	return component{
		Spec: process.Spec{
			Name: containerdName(n), Path: "/usr/bin/containerd", Args: []string{"--config", config}, Files: []string{config, cni},
		},
		healthy: func(ctx context.Context) error {
			_, err := ctr(ctx, n, "version")
			return err
		},
	}, nil
}

func ctr(ctx context.Context, n topology.Node, args ...string) (string, error) {
	return host.Run(ctx, "ctr", append([]string{"--address", n.ContainerdSocket(), "--namespace", "k8s.io"}, args...)...)
}

// containerdConfig keeps all of a node's containers apart from its neighbours' and from a containerd that the machine may
// run for itself. Plugins that would make directories elsewhere are off.
func containerdConfig(n topology.Node) string {
	return fmt.Sprintf(`version = 2
root = %[1]q
state = %[2]q
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]

[grpc]
  address = %[3]q

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %[4]q
  stream_server_address = "127.0.0.1"
  netns_mounts_under_state_dir = true
  tolerate_missing_hugetlb_controller = true
  disable_apparmor = true
  # Without CAP_SYS_RESOURCE no sandbox could lower its score, and none would start.
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = %[5]q

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      Root = %[6]q
      SystemdCgroup = false
`, n.Dir()+"/containerd", n.RunDir()+"/containerd", n.ContainerdSocket(), topology.PauseImage, n.Dir()+"/cni", n.RunDir()+"/runc")
}

func cniConfig(n topology.Node) string {
	return fmt.Sprintf(`{
  "cniVersion": "1.0.0",
  "name": %[1]q,
  "plugins": [{
    "type": "bridge",
    "bridge": %[1]q,
    "isDefaultGateway": true,
    "hairpinMode": true,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": %[2]q}]], "dataDir": %[3]q}
  }]
}
`, n.Name, n.PodRange, n.Dir()+"/ipam")
}
