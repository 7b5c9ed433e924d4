// Package sdk writes Dory processors in Go: long-running programs of which exactly one instance acts at a time, and whose
// variables outlive every instance.
//
// A processor declares its state with [Var] and does its work in iterations, which [Processor.Run] calls one after the
// other. Between two iterations the state is consistent: there, and only there, it is read, saved and replaced.
//
// # Environment
//
// The operator sets all of it. Where two spellings are given, either will do, and both must say the same.
//
//	PROCESSOR_ID, DORY_PROCESSOR_ID      whose state it is; without a cluster the default is "local"
//	APP_NAME                             app_name in GET /state; default: the processor's id
//	POD_NAME, DORY_POD_NAME              default: the host's name
//	POD_NAMESPACE, DORY_POD_NAMESPACE    default: the pod's own
//	DORY_HEALTH_PORT                     port of the HTTP endpoints; default 8080
//	DORY_BIND_ADDRESS                    IP address to listen on; default: all
//	DORY_INSTANCE                        namespace/name of the pod that is meant. In any other pod, which must be a copy, the
//	                                     processor serves HTTP and neither acts nor saves anything. Default: any pod is
//	DORY_EPOCH                           the epoch under which this instance acts; default: that of the restored state
//	DORY_ROLE                            "standby" for the target of a move; default "primary"
//	DORY_ROLE_FILE                       where the role is kept across restarts of the container; it overrides DORY_ROLE
//	                                     and DORY_EPOCH. Default: nowhere
//	DORY_STATE_TOKEN                     bearer token for /state and /handoff; without it they are open
//	RESTART_COUNT                        written into saved states; never makes the processor start empty
//	DORY_STATE_BACKEND                   where the state is kept, see below
//	DORY_STATE_CONFIGMAP                 name of the ConfigMap; default dory-state-<processor id>
//	DORY_STATE_PATH                      file for the backends pvc and local
//
// # Backends
//
//	configmap   a ConfigMap in the pod's namespace, up to 1 MiB; the default in a cluster
//	pvc         a file on a mounted volume, up to 10 MiB; default /var/lib/dory/dory-state-<processor id>.json
//	local       a file on this machine, up to 10 MiB; the default elsewhere; default dory-state-<processor id>.json
//	none        nothing is kept
//
// All of them hold the same document, with a checksum, and with the epoch and the sequence of the state. None replaces a
// document by an older one. [WithBackend] takes any other.
//
// # Moves
//
// The operator moves a processor to another pod between two iterations, so that none is lost or done twice: it starts a
// standby, which runs nothing, copies the state to it, quiesces the PRIMARY at the end of the iteration in hand, copies the
// rest, and promotes the standby under a new epoch. Nothing of this needs code in the processor. An instance that
// is a standby or quiesced saves nothing, and acts only when it is told to, also after its container was started again.
//
// # Guarantees
//
// A processor never starts empty while a saved state exists that it cannot read: it stays not ready and tries again, or
// fails if [WithRestoreTimeout] says so. GET /prestop, SIGTERM and SIGINT let the iteration in hand finish and save
// the state; what could not be saved is an error in the answer and in the exit code. An iteration that fails is
// undone. An instance that finds the state of a newer epoch saves nothing.
//
// What is not guaranteed: effects of an iteration outside of its variables are not undone. A crash loses what was
// committed since the last save, see [WithSaveInterval]. A change inside of a value, such as of a map's element, is neither
// undone nor seen: Set a new value.
package sdk
