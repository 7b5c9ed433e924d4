// Package placement gives the pods that name Dory's scheduler their nodes. It feeds internal/scheduler with what the API
// server tells of nodes, pods, namespaces and volumes, asks it where each waiting pod goes, the most important first, and
// binds the pod there.
//
// Claims that wait for their first consumer are bound before the pod is, for the node that was found.
//
// One goroutine owns the snapshot and the queue; informers and binders only send it letters. A pod counts as placed from
// the moment it is assumed, before it is bound, and is forgotten again if binding fails. A pod that fits nowhere sleeps
// until something happens that may help it, and says so in its condition PodScheduled, by which autoscalers provision.
package placement
