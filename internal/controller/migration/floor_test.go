package migration

import (
	"testing"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

// TestFloor: the next epoch is above what is known of stored copies, without a look at them in the handoff.
func TestFloor(t *testing.T) {
	recorded := func(epoch int64) *observation {
		return &observation{processor: &doryv1alpha1.Processor{Status: doryv1alpha1.ProcessorStatus{
			LastEpoch: 2, Checkpoint: &doryv1alpha1.ProcessorCheckpoint{Epoch: epoch},
		}}}
	}
	gathered := func(epoch int64) *observation {
		o := recorded(1)
		o.know.sawStored(&statexfer.State{Position: statexfer.Position{Epoch: epoch}})
		return o
	}
	for name, test := range map[string]struct {
		given *observation
		want  int64
	}{
		"of the processor itself":                     {recorded(1), 2},
		"of the newest copy, as the status says":      {recorded(108), 108},
		"of the newest copy, as it was found":         {gathered(108), 108},
		"not one that is not believed":                {recorded(1 << 62), 2},
		"not one that is not believed, though stored": {gathered(1 << 62), 2},
		"nothing is stored":                           {func() *observation { o := recorded(1); o.know.sawStored(nil); return o }(), 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := test.given.floor(); got != test.want {
				t.Errorf("floor %d, want %d", got, test.want)
			}
		})
	}
}
