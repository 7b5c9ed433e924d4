package statexfer

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"
)

func TestConfigMapName(t *testing.T) {
	for id, want := range map[string]string{
		"counter":                "dory-state-counter",
		"a.b-c":                  "dory-state-a.b-c",
		strings.Repeat("a", 242): "dory-state-" + strings.Repeat("a", 242),
		"Proc_6":                 "dory-state-proc-6.id-rzkm33b7ezi24sdkfftqwwjx67",
		"proc-6":                 "dory-state-proc-6",
	} {
		if got := ConfigMapName(id); got != want {
			t.Errorf("ConfigMapName(%q) is %q, want %q", id, got, want)
		}
	}
}

// TestNoTwoIDsShareAName, also where one id is chosen for the name that another has.
func TestNoTwoIDsShareAName(t *testing.T) {
	plain := rapid.OneOf(
		rapid.StringMatching(`[a-z0-9]([-.a-z0-9]{0,20}[a-z0-9])?`),
		rapid.StringMatching(`[A-Za-z0-9_. -]{0,30}`),
		rapid.StringMatching(`[a-z]{240,246}`),
		rapid.StringMatching(`[a-z0-9-]{1,8}\.id-[a-z2-7]{25,27}`),
		rapid.String(),
		rapid.SampledFrom([]string{"", "Proc_6", "proc-6", "PROC-6", "proc 6", "größe", "..", "-", "a.", strings.Repeat("A", 512)}),
	)
	derived := rapid.Custom(func(t *rapid.T) string {
		id := plain.Draw(t, "of")
		return rapid.SampledFrom([]string{Alias(id), Alias(Alias(id)), ConfigMapName(id), strings.ToLower(id), readable(id), "dory-state-" + id}).Draw(t, "derived")
	})
	ids := rapid.OneOf(plain, derived)
	rapid.Check(t, func(t *rapid.T) {
		seen := map[string]string{}
		for _, id := range rapid.SliceOfN(ids, 2, 40).Draw(t, "ids") {
			for _, id := range []string{id, Alias(id), readable(id)} {
				name := ConfigMapName(id)
				if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
					t.Fatalf("%q has the name %q, which is none: %v", id, name, problems)
				}
				if other, taken := seen[name]; taken && other != id {
					t.Fatalf("%q and %q are both called %q", id, other, name)
				}
				seen[name] = id
			}
		}
	})
}
