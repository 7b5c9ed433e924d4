// Package oracle compares the placement engine with the real kube-scheduler. It is a module of its own, so that the
// operator does not depend on Kubernetes' own code.
package oracle
