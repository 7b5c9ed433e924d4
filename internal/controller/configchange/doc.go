// Package configchange notices that the content of a ConfigMap or Secret changed that a processor's pod refers to, where
// spec.update.onConfigChange is Restart, and writes what it sees into the Processor's status. What the pod was made with is
// recorded on it (package pod), so lifecycle sees the difference and brings it about as an update.
//
// Nothing is watched for the other Processors. For these, the metadata of the ConfigMaps in their namespaces are, and of
// the Secrets if people granted that; content is read past the cache, and only its hash is kept.
package configchange
