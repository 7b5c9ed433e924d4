package faults

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store/pgtest"
)

// PostgreSQL is killed under an operator that works, and comes back: nobody is stopped by that, whose epoch is known in
// Kubernetes is replaced, and who never had one waits.
func TestPostgreSQLKilledAndBack(t *testing.T) {
	postgres := pgtest.Start(t)
	w := newWorldOn(t, postgres)
	witness := w.watch()
	w.row("row")
	w.apply("applied")
	w.apply("returns")
	w.start(shared.shipped, alone, "--resync-interval=1s")
	stays := map[string]*corev1.Pod{"row": w.runs("row"), "applied": w.runs("applied")}
	first := w.runs("returns")
	w.until("the database knows all three", func() error {
		n, err := ask[int](w, `SELECT count(*) FROM processors WHERE phase = 'Running'`)
		if err == nil && n != len(stays)+1 {
			err = fmt.Errorf("it knows %d", n)
		}
		return err
	})

	w.must(postgres.Kill())
	w.deletePod(first)
	second := w.replaced("returns", first)
	w.apply("fresh")
	w.until("a processor whose last epoch nobody can read waits, and says so", func() error {
		p, err := w.get("fresh")
		if err != nil {
			return err
		}
		ready := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionReady)
		if ready == nil || ready.Reason != doryv1alpha1.ReasonEpochUnavailable || !strings.Contains(ready.Message, "database") {
			return fmt.Errorf("condition %+v", ready)
		}
		return nil
	})
	w.stays("nobody else is touched", 3*time.Second, func() error {
		if err := w.pods("fresh", 0); err != nil {
			return err
		}
		for name, pod := range stays {
			now, err := w.running(name)
			if err == nil && now.UID != pod.UID {
				err = fmt.Errorf("%s runs in another pod", name)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})

	w.must(postgres.Start())
	w.runs("fresh")
	w.row("new-row")
	w.runs("new-row")
	w.deletePod(second)
	w.replaced("returns", second)
	witness.agrees([]string{"row", "applied", "returns", "fresh", "new-row"})
}

// replaced waits until another pod than this runs.
func (w *world) replaced(name string, before *corev1.Pod) *corev1.Pod {
	w.Helper()
	var pod *corev1.Pod
	w.until(name+" runs in another pod", func() error {
		var err error
		if pod, err = w.running(name); err == nil && pod.UID == before.UID {
			err = errors.New("it is the same")
		}
		return err
	})
	return pod
}
