// Package pod makes the pod of a processor, and says whether an existing one is still what its Processor asks
// for. It is pure: no client, no clock, no randomness.
package pod
