package migration

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dory-io/dory/internal/statexfer"
)

func TestFewHandoffsAreUnderWayAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate()
		begun := time.Now()
		leave := g.enter(t.Context(), time.Second)
		for range handoffsAtOnce - 1 {
			g.enter(t.Context(), time.Second)
		}
		if waited := time.Since(begun); waited != 0 {
			t.Errorf("the first %d waited %s", handoffsAtOnce, waited)
		}
		time.AfterFunc(200*time.Millisecond, leave)
		g.enter(t.Context(), time.Second)
		if waited := time.Since(begun); waited != 200*time.Millisecond {
			t.Errorf("the next one waited %s, want until the first had handed over", waited)
		}
		begun = time.Now()
		impatient := g.enter(t.Context(), time.Second)
		if waited := time.Since(begun); waited != time.Second {
			t.Errorf("one who waits for processors that do not answer waited %s", waited)
		}
		impatient()
		if len(g) != handoffsAtOnce {
			t.Errorf("%d are under way, want %d: who did not get in makes no room", len(g), handoffsAtOnce)
		}
	})
}

// A pass that ends in the middle, as where a processor does not answer, is in nobody's way any more.
func TestAPassLeavesTheGate(t *testing.T) {
	quiesce := decision{step: stepQuiesce, timeout: time.Minute}
	for name, end := range map[string]func(*pass){
		"when the processor acts again": func(p *pass) { p.after(stepPromote) },
		"when it ends":                  func(*pass) {},
	} {
		t.Run(name, func(t *testing.T) {
			p := pass{gate: newGate()}
			before := func(role string, d decision) {
				t.Helper()
				if err := p.before(t.Context(), &observation{know: knowledge{sourceIs: &statexfer.HandoffStatus{Role: role}}}, d); err != nil {
					t.Error(err)
				}
			}
			before(rolePrimary, decision{step: stepCheckTarget})
			before(roleQuiesced, quiesce)
			if len(p.gate) != 0 {
				t.Error("it enters while the source works, or where it stands still already")
			}
			before(rolePrimary, quiesce)
			before(rolePrimary, quiesce)
			if len(p.gate) != 1 {
				t.Errorf("it has entered %d times", len(p.gate))
			}
			end(&p)
			p.end()
			if len(p.gate) != 0 {
				t.Error("it has not left")
			}
		})
	}
}

// An operator that is to end lets a source work that has not begun to hand over.
func TestNobodyIsQuiescedByAnOperatorThatEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p := pass{gate: newGate()}
	working := &observation{know: knowledge{sourceIs: &statexfer.HandoffStatus{Role: rolePrimary}}}
	if err := p.before(ctx, working, decision{step: stepQuiesce, timeout: time.Minute}); err == nil {
		t.Error("the pass goes on")
	}
}
