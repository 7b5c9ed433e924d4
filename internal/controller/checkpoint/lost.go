package checkpoint

import (
	"bytes"
	"time"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

// emptyChecksum is that of {}.
const emptyChecksum = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

// uptimeSlack is by how much two answers of one process may disagree about its age: clocks are set, too.
const uptimeSlack = time.Second

// beginning is what is known of a process when its state is looked at for the first time.
type beginning struct {
	// state is the first that was captured, and checksum the contract's.
	state    *statexfer.State
	checksum string
	// pod is its name, and started when the process started, by the pod's own clock where that can be told.
	pod     string
	started time.Time
	// fresh is the checksum of the state with which the processor starts where it finds none; empty if unknown.
	fresh string
	// handed: it may have a state that it did not load from the ConfigMap.
	handed bool
}

// lostState says whether a process began without its state: neither with the newest stored copy nor with what came
// after it.
//
// Where the SDK counts, that is certain: the sequence rises with every iteration that was ever committed, also across
// instances, so a process that has its state never shows a lower one than a stored copy does.
//
// Where it does not count, only a state that cannot have come from the copy is taken for one without it; and only if the
// copy is another one, is not empty, and was not made by this very process. That is the empty state, the one with which the
// processor once began, an older copy than the newest, and whatever a process has that started when the newest copy was
// out of its reach. Of a copy within its reach, a process that lost its state and has changed the initial one since
// cannot be told from one that has it; restoring over it could destroy what is newer, so it is left alone.
func lostState(b beginning, stored *statestore.Inventory) bool {
	newest := stored.Newest()
	if newest == nil {
		return false
	}
	if b.state.HasPosition && newest.Version.Sequence > 0 {
		return b.state.Position.Sequence < newest.Version.Sequence
	}
	if newest.PodName == b.pod && !b.started.After(newest.Version.Time) {
		return false
	}
	if newest.Checksum == b.checksum || newest.Checksum == emptyChecksum {
		return false
	}
	return initial(b.checksum, b.fresh) || isOlderCopy(b.checksum, stored) || outOfReach(b, newest)
}

// outOfReach says that the process cannot have loaded the copy: SDKs look into the ConfigMap alone, where it does not fit.
func outOfReach(b beginning, newest *statestore.Copy) bool {
	elsewhere := newest.Storage == doryv1alpha1.CheckpointDatabase || newest.Storage == doryv1alpha1.CheckpointChunks
	return elsewhere && !b.handed && !b.state.HasPosition && b.started.After(newest.Version.Time)
}

func initial(checksum, fresh string) bool {
	return checksum == emptyChecksum || (fresh != "" && checksum == fresh)
}

func isOlderCopy(checksum string, stored *statestore.Inventory) bool {
	for _, c := range stored.Copies[1:] {
		if c.Checksum == checksum {
			return true
		}
	}
	return false
}

// suspects says whether the state looks as if its process had restarted although its kubelet has not said so: such a
// process may not have restored its state yet, and what it shows must not be stored.
func (e *entry) suspects(state *statexfer.State, began time.Time) bool {
	if state.HasPosition {
		return state.Position.Sequence < e.saved.Version.Sequence && state.Position.Epoch <= e.saved.Version.Epoch
	}
	if e.uptime > 0 && state.Uptime > 0 && state.Uptime+uptimeSlack < e.uptime+began.Sub(e.at) {
		return true
	}
	return e.saved.Checksum != emptyChecksum && e.saved.Storage != "" && isEmpty(state.Data)
}

func isEmpty(data []byte) bool {
	return len(data) <= len("{ }")*2 && bytes.Equal(bytes.Join(bytes.Fields(data), nil), []byte("{}"))
}
