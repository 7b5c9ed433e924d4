// Package manifests tests what config/ ships, on a real API server: that all of it applies, that the CRDs take what they
// should and refuse what they must with a message that says why, and that the admission policies guard what the database
// and the operator own.
package manifests
