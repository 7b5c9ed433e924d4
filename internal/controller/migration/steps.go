package migration

import (
	"context"
	"fmt"
	"syscall"
	"time"
)

// step names one persisted write or one call to a processor. Whatever this package does to the world is one of them.
type step string

// The steps, in the order in which a move takes them.
const (
	// stepLook reads the epoch and the migrations past the cache, before a decision relies on them.
	stepLook step = "look"
	// stepAskSource asks which capabilities the source has.
	stepAskSource step = "ask-source"
	// stepAskTurn asks whether the move may begin now, or has to wait until fewer processors move.
	stepAskTurn step = "ask-turn"
	// stepHold puts the finalizer on the migration.
	stepHold step = "hold"
	// stepNote writes why a migration waits.
	stepNote step = "note"
	// stepEnterPlacing and the others like it write the phase.
	stepEnterPlacing step = "enter-placing"
	// stepCreateTarget creates the target's pod.
	stepCreateTarget  step = "create-target"
	stepEnterStarting step = "enter-starting"
	// stepAskTarget asks which capabilities the target has.
	stepAskTarget    step = "ask-target"
	stepEnterWarming step = "enter-warming"
	// stepRecall reads what the source was made from, where that is not the Processor's present spec.
	stepRecall step = "recall"
	// stepRehearse asks all that can be known about the target's pod before the source is ended for it.
	stepRehearse step = "rehearse"
	// stepForesee asks whether the target would find its state, before the source is ended.
	stepForesee step = "foresee"
	// stepKeep makes durable what the source was made from, before it is ended.
	stepKeep step = "keep"
	// stepCapture reads the state of the working source.
	stepCapture step = "capture"
	// stepWarm gives the target a first copy.
	stepWarm step = "warm"
	// stepReserve makes the copy durable before the source is ended.
	stepReserve         step = "reserve"
	stepEnterHandingOff step = "enter-handing-off"
	// stepDraw takes the number of the next epoch off the ledger, which the source does not stand still for.
	stepDraw step = "draw"
	// stepAside writes on the source's pod that a restarted process is not to act.
	stepAside step = "step-aside"
	// stepCheckSource and stepCheckTarget ask a process which one it is and what role it has.
	stepCheckSource step = "check-source"
	stepCheckTarget step = "check-target"
	// stepQuiesce stops the source's work and takes its final state.
	stepQuiesce step = "quiesce"
	// stepRestore gives the final state to the target.
	stepRestore step = "restore"
	// stepVerify makes sure that the target holds it.
	stepVerify step = "verify"
	// stepConfirm makes sure that both are still the processes that this was done with.
	stepConfirm step = "confirm"
	// stepCommit issues the epoch to the target.
	stepCommit step = "commit"
	// stepPromote lets the target act.
	stepPromote step = "promote"
	// stepAdopt writes epoch and role on the target's pod.
	stepAdopt         step = "adopt"
	stepEnterRetiring step = "enter-retiring"
	// stepDeleteSource asks the source's kubelet to end it.
	stepDeleteSource   step = "delete-source"
	stepEnterSucceeded step = "enter-succeeded"

	stepEnterRollingBack step = "enter-rolling-back"
	// stepBar outdates a commit that an earlier leader may still be about to make, before the source acts again.
	stepBar step = "bar"
	// stepResume lets the quiesced source work on.
	stepResume step = "resume"
	// stepGather collects the newest state that can be had from anywhere.
	stepGather step = "gather"
	// stepSave makes the gathered state durable.
	stepSave step = "save"
	// stepReviveIssue, stepReviveRestore and stepRevivePromote let a source act again whose process was restarted while it
	// stood aside: it knows nothing.
	stepReviveIssue   step = "revive-issue"
	stepReviveRestore step = "revive-restore"
	stepRevivePromote step = "revive-promote"
	// stepBack writes on the source's pod that it acts.
	stepBack step = "step-back"
	// stepDeleteTarget asks the target's kubelet to end it.
	stepDeleteTarget    step = "delete-target"
	stepEnterRolledBack step = "enter-rolled-back"
	stepEnterFailed     step = "enter-failed"
	// stepRelease takes the finalizer off the migration.
	stepRelease step = "release"
	// stepCollect deletes an ended migration beyond the history limit.
	stepCollect step = "collect"
)

// steps lists them all; the fault tests kill the operator before and after each.
var steps = []step{
	stepLook, stepAskSource, stepAskTurn, stepHold, stepNote, stepRecall, stepEnterPlacing, stepCreateTarget, stepEnterStarting, stepAskTarget,
	stepEnterWarming, stepRehearse, stepCapture, stepWarm, stepReserve, stepForesee, stepKeep, stepEnterHandingOff, stepDraw, stepAside,
	stepCheckSource, stepCheckTarget, stepQuiesce, stepRestore, stepVerify, stepConfirm, stepCommit, stepPromote, stepAdopt, stepEnterRetiring,
	stepDeleteSource, stepEnterSucceeded, stepEnterRollingBack, stepBar, stepResume, stepGather, stepSave, stepReviveIssue,
	stepReviveRestore, stepRevivePromote, stepBack, stepDeleteTarget, stepEnterRolledBack, stepEnterFailed, stepRelease,
	stepCollect,
}

// Steps are the names of all steps, as the failpoints take them.
func Steps() []string {
	names := make([]string, len(steps))
	for i, s := range steps {
		names[i] = string(s)
	}
	return names
}

// stepTimeout bounds a step, so that a processor that hangs holds a worker no longer. It is the contract's for a request.
const stepTimeout = 30 * time.Second

// run takes a step. Nothing else in this package writes anything or calls a processor.
func (r *Reconciler) run(ctx context.Context, o *observation, d decision) error {
	act, known := r.acts[d.step]
	if !known {
		return fmt.Errorf("there is no step %q", d.step)
	}
	timeout := stepTimeout
	if d.timeout > 0 {
		timeout = d.timeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	began := r.clock.Now()
	// gofail: var migrationBefore string
	// dieAt(migrationBefore, d.step)
	err := act(ctx, o, d)
	// gofail: var migrationAfter string
	// dieAt(migrationAfter, d.step)
	o.now = r.clock.Now()
	r.metrics.took(d.step, o.now.Sub(began))
	if err != nil {
		return fmt.Errorf("step %s: %w", d.step, err)
	}
	return nil
}

// dieAt ends the process as a crash does. Nothing calls it but what gofail makes of the failpoints in run, by which the fault
// tests kill the operator: GOFAIL_FAILPOINTS='migrationBefore=return("commit")'.
func dieAt(where string, at step) { //nolint:unused // see above
	if where == string(at) {
		syscall.Kill(syscall.Getpid(), syscall.SIGKILL) //nolint:errcheck // It does not return.
		select {}
	}
}
