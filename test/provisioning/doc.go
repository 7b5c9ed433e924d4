// Package provisioning proves that whoever provisions nodes understands what placement says about pods that fit nowhere.
package provisioning
