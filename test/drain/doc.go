// Package drain tests drains as people and programs do them: the upstream kubectl, a real API server, the shipped manifests
// and the shipped binary with the rights of its ServiceAccount. The pods' processes are real; a gateway plays the Service
// through which the API server asks the operator.
package drain
