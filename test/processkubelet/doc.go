// Package processkubelet plays the scheduler and the kubelets of a cluster, for tests that run against envtest's API server:
// pods become processes of this machine, each on a loopback address of its own, and everything about them happens as a
// kubelet makes it happen, only faster. Nodes can be stopped and cut off, processes killed and frozen.
//
// What a kubelet does and this does not: liveness probes, init containers, volumes, resources, images. All containers of a pod
// but the processor's are taken to run whenever that one does.
package processkubelet
