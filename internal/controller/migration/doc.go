// Package migration moves a processor from one pod to another: every ProcessorMigration is a state machine whose state is
// its status, so that the next leader goes on where the last one died, or rolls back.
//
// A pass observes (observe.go), decides on one step (decide*.go, pure), takes it (act*.go, through run), and adds what it
// learned to the observation, until there is nothing to do but wait. All migrations of a Processor are one pass's, so
// that queueing and "at most one active" are decided in one place.
//
// The commit is the ProcessorEpoch: once it names the target, the machine only goes forward; until then it can always go
// back to the source. Who acts is asked anew after every interruption, and nothing is concluded from a step that may or
// may not have happened.
package migration
