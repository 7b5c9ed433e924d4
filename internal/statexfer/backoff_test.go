package statexfer

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWaits(t *testing.T) {
	slow, soon := failure{}, failure{soon: true}
	asks := failure{after: 3 * time.Second}
	const second = time.Second
	for name, test := range map[string]struct {
		failures []failure
		random   float64
		want     []time.Duration
	}{
		"grows up to the cap":           {[]failure{slow, slow, slow, slow, slow, slow, slow}, 0, []time.Duration{second, 2 * second, 4 * second, 8 * second, 16 * second, 30 * second, 30 * second}},
		"ends":                          {[]failure{slow, slow, slow, slow, slow, slow, slow, slow}, 1, []time.Duration{second / 2, second, 2 * second, 4 * second, 8 * second, 15 * second, 15 * second}},
		"half of it is chance":          {[]failure{slow, slow}, 0.5, []time.Duration{750 * time.Millisecond, 1500 * time.Millisecond}},
		"soon, once":                    {[]failure{soon, soon, soon}, 0, []time.Duration{soonWait, second, 2 * second}},
		"not soon after something else": {[]failure{slow, soon}, 0, []time.Duration{second, 2 * second}},
		"as long as asked for":          {[]failure{asks, asks, asks, asks}, 0, []time.Duration{3 * second, 3 * second, 4 * second, 8 * second}},
		"as long as one waits":          {[]failure{{after: maxWait}}, 0, []time.Duration{maxWait}},
		"asked for too long":            {[]failure{{after: maxWait + 1}}, 0, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var w waits
			var got []time.Duration
			for _, failed := range test.failures {
				wait, again := w.next(&failed, test.random)
				if !again {
					break
				}
				got = append(got, wait)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
