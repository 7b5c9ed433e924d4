package dbsync

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

func version(uid, rv string) *doryv1alpha1.Processor {
	return object("a", func(p *doryv1alpha1.Processor) { p.UID, p.ResourceVersion = types.UID(uid), rv })
}

func TestViewPrefersWhatIsNewer(t *testing.T) {
	key := client.ObjectKeyFromObject(version("u", "1"))
	written := version("u", "10")
	tests := map[string]struct {
		prepare func(*view)
		cached  client.Object
		want    client.Object
	}{
		"nothing was written":                {func(*view) {}, version("u", "5"), version("u", "5")},
		"the cache is behind":                {func(v *view) { v.wrote(written) }, version("u", "9"), written},
		"the cache has not seen the object":  {func(v *view) { v.wrote(written) }, nil, written},
		"the cache is up to date":            {func(v *view) { v.wrote(written) }, version("u", "10"), version("u", "10")},
		"the cache is ahead":                 {func(v *view) { v.wrote(written) }, version("u", "100"), version("u", "100")},
		"we deleted it":                      {func(v *view) { v.removed(written) }, version("u", "9"), nil},
		"we deleted it, and the cache knows": {func(v *view) { v.removed(written) }, nil, nil},
		"another came after the deletion":    {func(v *view) { v.removed(written) }, version("u2", "11"), version("u2", "11")},
		"others deleted what we wrote":       {func(v *view) { v.wrote(written); v.seenGone(version("u", "12")) }, nil, nil},
		"a later object is not what ended":   {func(v *view) { v.wrote(version("u2", "20")); v.seenGone(written) }, nil, version("u2", "20")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			v := newView(nil, processors{}.newObject, testingclock.NewFakePassiveClock(start()))
			tt.prepare(v)
			got := v.latest(key, tt.cached)
			if (got == nil) != (tt.want == nil) || (got != nil && got.GetResourceVersion() != tt.want.GetResourceVersion()) {
				t.Errorf("latest = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestViewTellsOurOwnWrites(t *testing.T) {
	v := newView(nil, processors{}.newObject, testingclock.NewFakePassiveClock(start()))
	v.wrote(version("u", "10"))
	if v.seen(version("u", "9")) {
		t.Error("an older state is taken for our write")
	}
	if !v.seen(version("u", "10")) {
		t.Error("our write is not known")
	}
	if v.seen(version("u", "10")) {
		t.Error("a write is seen twice")
	}
	v.wrote(version("u", "20"))
	if v.seen(version("u", "21")) {
		t.Error("somebody else's write is taken for ours")
	}
}

func TestViewForgets(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(start())
	v := newView(nil, processors{}.newObject, clock)
	v.wrote(version("u", "10"))
	clock.SetTime(start().Add(maxLag + time.Second))
	if got := v.latest(client.ObjectKeyFromObject(version("u", "1")), nil); got != nil {
		t.Errorf("latest = %v long after the write, want what the cache says", got)
	}
	v.removed(version("u", "10"))
	clock.SetTime(clock.Now().Add(maxLag + time.Second))
	if v.forgetOld(); len(v.writes) != 0 {
		t.Errorf("%d old writes are kept", len(v.writes))
	}
}

func TestBook(t *testing.T) {
	b := newBook()
	key := types.NamespacedName{Namespace: "n", Name: "a"}
	b.set("a", trouble{problem: "no", key: key, revision: 3, refused: true})
	b.set("b", trouble{problem: "bad", key: types.NamespacedName{Namespace: "m", Name: "b"}, revision: 1})
	b.set("c", trouble{})
	if got := b.refusal("a", 3); got != "no" {
		t.Errorf("refusal = %q", got)
	}
	for _, gone := range []string{b.refusal("a", 4), b.refusal("b", 1), b.refusal("c", 0)} {
		if gone != "" {
			t.Errorf("refusal = %q of another revision, of an error that needs no try, or of a good row", gone)
		}
	}
	if ids := b.waitingFor(key); len(ids) != 1 || ids[0] != "a" {
		t.Errorf("waitingFor = %v, want a", ids)
	}
	if ids := b.inNamespace("m"); len(ids) != 1 || ids[0] != "b" {
		t.Errorf("inNamespace = %v, want b", ids)
	}
	b.set("a", trouble{})
	if b.keepOnly(map[string]types.NamespacedName{"a": key}); b.len() != 0 {
		t.Errorf("%d rows are left in the book, want none", b.len())
	}
}

func TestDeletionGuardWindow(t *testing.T) {
	clock := testingclock.NewFakePassiveClock(start())
	g := newDeletionGuard(clock, 10*time.Second)
	g.count()
	clock.SetTime(start().Add(5 * time.Second))
	g.count()
	if n := g.recent(); n != 2 {
		t.Errorf("recent = %d, want 2", n)
	}
	clock.SetTime(start().Add(10 * time.Second))
	if n := g.recent(); n != 1 {
		t.Errorf("recent = %d after the first one's window, want 1", n)
	}
	o := version("u", "1")
	if !g.begins() || g.begins() || !g.news(o) || g.news(o) {
		t.Error("what is held is news once")
	}
	if g.keepTold(nil); !g.begins() || !g.news(o) {
		t.Error("what is held again is news again")
	}
}
