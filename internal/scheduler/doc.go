// Package scheduler decides on which node a pod runs. It is pure: no client, no clock, no randomness. A Snapshot is
// fed with what happens to nodes and pods, and asked where a pod fits: on the fullest healthy node that keeps a part of
// its resources free. The same events in the same order give the same decisions; ties go to the lower name.
//
// What is refused is what kube-scheduler refuses for the same pod (requests, host ports, node affinity, taints, topology
// spread, pod affinity, volumes), and nodes that are not ready or on their way out.
//
// Nodes that no selector and no taint can tell apart form a class. What a pod asks of a node is compared with classes,
// and remembered for the next pod that asks the same; inside of a class, nodes lie ordered by how full they are. A
// Snapshot is copied in microseconds, whatever its size, because copies share all that neither of them changes.
//
// A Snapshot is not safe for concurrent use. A copy and its original are independent of each other, so each may have a
// goroutine of its own.
package scheduler
