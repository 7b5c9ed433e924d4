// Package lifecycle keeps exactly one instance of every Processor alive: it issues the epoch, creates the pod,
// replaces it when it ended or its spec changed, and never starts one before the last is proven gone.
//
// A pass observes (observe.go), decides (decide.go, pure), acts (act.go) and reports (status.go, pure).
package lifecycle
