// Package evictionresponder answers Evictions of the API group lifecycle.k8s.io/v1alpha1, which Kubernetes 1.37 begins with: a
// responder says how far it is, and nobody has to ask in vain. It asks the same desk as the webhook of the imperative
// eviction does, and reports what it hears.
package evictionresponder
