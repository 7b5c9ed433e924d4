package migration

import (
	"testing"
	"testing/synctest"
	"time"
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
			p.before(t.Context(), decision{step: stepCheckTarget})
			if len(p.gate) != 0 {
				t.Error("it enters while the source works")
			}
			p.before(t.Context(), quiesce)
			p.before(t.Context(), quiesce)
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
