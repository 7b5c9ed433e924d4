// Package rig runs what a benchmark measures, on this machine and from real parts: etcd and kube-apiserver by envtest,
// kube-controller-manager, kube-scheduler, kwok in the place of kubelets, PostgreSQL, and the operator's own binary as a
// process of its own. Everything listens on loopback alone and ends with the benchmark.
package rig
