package faults

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// replicas are operators of which one leads.
type replicas struct {
	w   *world
	all []*operator
}

const leads = "Successfully acquired lease"

func (r *replicas) add(binary string) *operator {
	r.w.Helper()
	o := r.w.start(binary)
	r.all = append(r.all, o)
	return o
}

// leader waits until one of those that are left leads.
func (r *replicas) leader() *operator {
	r.w.Helper()
	var leader *operator
	r.w.until("a replica leads", func() error {
		for _, o := range r.all {
			if !o.hasEnded() && o.says(leads) {
				leader = o
				return nil
			}
		}
		return errors.New("none does")
	})
	return leader
}

func (r *replicas) without(o *operator) {
	r.all = slices.DeleteFunc(r.all, func(other *operator) bool { return other == o })
}

// expire takes the lease from a leader that is dead or frozen, to save the 15 s until it has run out.
func (r *replicas) expire() {
	r.w.Helper()
	r.w.must(client.IgnoreNotFound(shared.k8s.Delete(r.w.Context(), r.w.lease())))
}

// Two replicas; the one that leads is killed again and again while pods are made, and every other time is only frozen: it
// wakes up when another leads, in the middle of what it was about to do, and takes itself for the leader for up to 10 s.
func TestLeaderKilledAndFrozen(t *testing.T) {
	const rounds, each = 5, 20
	w := newWorld(t)
	random, witness := w.random(), w.watch()
	r := &replicas{w: w}
	r.add(shared.shipped)
	r.add(shared.shipped)
	var ids []string
	var frozen *operator
	for round := range rounds {
		leader := r.leader()
		pods := witness.births() + 1 + random.IntN(each-1)
		ids = append(ids, w.rows(len(ids), each)...)
		if frozen != nil {
			frozen.signal(syscall.SIGCONT)
		}
		w.until("pods are made", func() error {
			if witness.births() < pods {
				return errors.New("not yet")
			}
			return nil
		})
		if frozen != nil {
			frozen.kill()
			frozen = nil
		}
		r.without(leader)
		if round%2 == 0 {
			leader.kill()
		} else {
			leader.signal(syscall.SIGSTOP)
			frozen = leader
		}
		r.expire()
		r.add(shared.shipped)
	}
	w.allRun(rounds * each)
	witness.agrees(ids)
}

// rows makes n rows at once, and answers their ids.
func (w *world) rows(from, n int) []string {
	w.Helper()
	w.sql(`INSERT INTO processors (id, processor_template_id, k8s_namespace) SELECT 'p-' || i, 't', $1 FROM generate_series($2::int, $3::int) i`,
		w.namespace, from, from+n-1)
	var ids []string
	for i := range n {
		ids = append(ids, fmt.Sprint("p-", from+i))
	}
	return ids
}
