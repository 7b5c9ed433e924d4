// Package webhook answers evictions. The API server asks it about every eviction of a pod whose name is a processor's; it
// asks the desk of the drain, and says no, with 429 and how far the move is, until the pod may go. Every replica answers;
// the leader keeps the certificate that all of them serve with.
package webhook
