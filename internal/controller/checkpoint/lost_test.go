package checkpoint

import (
	"errors"
	"testing"
	"time"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statestore"
	"github.com/dory-io/dory/internal/statexfer"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func copyAt(epoch, sequence int64, at time.Time, checksum, pod string) *statestore.Copy {
	return &statestore.Copy{
		Version:  statestore.Version{Position: statexfer.Position{Epoch: epoch, Sequence: sequence}, Time: at},
		Checksum: checksum, PodName: pod,
	}
}

func stored(copies ...*statestore.Copy) *statestore.Inventory {
	return &statestore.Inventory{Copies: copies}
}

// A process that starts while the database is away goes on from chunks, which have to go once the database has its state.
func TestAdoptKnowsWhatBecomesObsoleteWhileTheDatabaseIsAway(t *testing.T) {
	chunks := copyAt(1, 7, noon, "shown", "old")
	chunks.Storage = doryv1alpha1.CheckpointChunks
	found := stored(chunks)
	found.Problems = []statestore.Problem{{Storage: doryv1alpha1.CheckpointDatabase, Away: true, Err: errors.New("no connection")}}
	e := &entry{}
	e.adopt(counts(1, 7), found)
	if e.previous != doryv1alpha1.CheckpointChunks {
		t.Errorf("the chunks would stay for ever: previous is %q", e.previous)
	}
	if e.raw != "" {
		t.Error("the state counts as stored, though the database may hold a newer one")
	}
}

// counts is what an SDK shows that counts; plain is one that does not.
func counts(epoch, sequence int64) beginning {
	return beginning{
		state:    &statexfer.State{Position: statexfer.Position{Epoch: epoch, Sequence: sequence}, HasPosition: true},
		checksum: "shown", pod: "new", started: noon,
	}
}

func plain(checksum string) beginning {
	return beginning{state: &statexfer.State{}, checksum: checksum, pod: "new", started: noon, fresh: "fresh"}
}

// in is the copy as one of that storage.
func in(storage doryv1alpha1.CheckpointStorage, c *statestore.Copy) *statestore.Copy {
	moved := *c
	moved.Storage = storage
	return &moved
}

func TestLostState(t *testing.T) {
	const (
		configMap = doryv1alpha1.CheckpointConfigMap
		database  = doryv1alpha1.CheckpointDatabase
		chunks    = doryv1alpha1.CheckpointChunks
	)
	before := noon.Add(-time.Minute)
	handed := plain("other")
	handed.handed = true
	older := plain("other")
	older.started = before.Add(-time.Minute)
	counted := copyAt(3, 500, before, "full", "old")
	uncounted := copyAt(3, 0, before, "full", "old")
	for name, test := range map[string]struct {
		begins beginning
		stored *statestore.Inventory
		want   bool
	}{
		"nothing is stored":                       {counts(4, 0), stored(), false},
		"nothing is stored, empty":                {plain(emptyChecksum), stored(), false},
		"counts: began anew":                      {counts(4, 0), stored(counted), true},
		"counts: has some, from an older copy":    {counts(4, 499), stored(counted), true},
		"counts: has it":                          {counts(4, 500), stored(counted), false},
		"counts: has it and went on":              {counts(4, 507), stored(counted), false},
		"counts: the same epoch, began anew":      {counts(3, 2), stored(counted), true},
		"counts: a lower epoch, but more":         {counts(0, 501), stored(counted), false},
		"counts: the copy does not":               {counts(4, 0), stored(uncounted), false},
		"plain: empty":                            {plain(emptyChecksum), stored(uncounted), true},
		"plain: as it once began":                 {plain("fresh"), stored(uncounted), true},
		"plain: something else":                   {plain("other"), stored(uncounted), false},
		"plain: the copy's":                       {plain("full"), stored(uncounted), false},
		"plain: an older copy's":                  {plain("stale"), stored(uncounted, copyAt(2, 0, before, "stale", "older")), true},
		"plain: empty, and so is the copy":        {plain(emptyChecksum), stored(copyAt(3, 0, before, emptyChecksum, "old")), false},
		"plain: empty, and the copy is fresh":     {plain(emptyChecksum), stored(copyAt(3, 0, before, "fresh", "old")), true},
		"plain: as it once began, like the copy":  {plain("fresh"), stored(copyAt(3, 0, before, "fresh", "old")), false},
		"plain: as it once began, the copy empty": {plain("fresh"), stored(copyAt(3, 0, before, emptyChecksum, "old")), false},
		"plain: empty, the copy counts":           {plain(emptyChecksum), stored(counted), true},
		"plain: emptied since its own checkpoint": {plain(emptyChecksum), stored(copyAt(4, 0, noon.Add(time.Minute), "full", "new")), false},
		"plain: restarted in the same pod":        {plain(emptyChecksum), stored(copyAt(4, 0, before, "full", "new")), true},

		"plain: worked on, the copy in the database":           {plain("other"), stored(in(database, uncounted)), true},
		"plain: worked on, the copy in chunks":                 {plain("other"), stored(in(chunks, uncounted)), true},
		"plain: worked on, the copy where the SDK looks":       {plain("other"), stored(in(configMap, uncounted)), false},
		"plain: worked on, restarted in the same pod":          {plain("other"), stored(in(database, copyAt(4, 0, before, "full", "new"))), true},
		"plain: worked on, its own copy":                       {plain("other"), stored(in(database, copyAt(4, 0, noon.Add(time.Minute), "full", "new"))), false},
		"plain: worked on, handed its state":                   {handed, stored(in(database, uncounted)), false},
		"plain: worked on, older than the copy":                {older, stored(in(database, uncounted)), false},
		"plain: the copy's own state, from a smaller place":    {plain("full"), stored(in(database, uncounted)), false},
		"counts: the copy does not, and is out of its reach":   {counts(4, 3), stored(in(database, uncounted)), false},
		"counts: has it and went on, the copy in the database": {counts(4, 507), stored(in(database, counted)), false},
	} {
		if got := lostState(test.begins, test.stored); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestSuspects(t *testing.T) {
	remembered := func(change func(*entry)) *entry {
		e := &entry{at: noon, uptime: time.Minute}
		e.saved = *copyAt(3, 50, noon, "full", "pod")
		e.saved.Storage = "ConfigMap"
		change(e)
		return e
	}
	same := func(*entry) {}
	for name, test := range map[string]struct {
		change func(*entry)
		state  *statexfer.State
		want   bool
	}{
		"as old as it should be":                 {same, &statexfer.State{Uptime: 90 * time.Second, Data: []byte(`{"a":1}`)}, false},
		"a little younger, by its clock":         {same, &statexfer.State{Uptime: 90*time.Second - uptimeSlack, Data: []byte(`{"a":1}`)}, false},
		"younger":                                {same, &statexfer.State{Uptime: 29 * time.Second, Data: []byte(`{"a":1}`)}, true},
		"younger than the time between":          {same, &statexfer.State{Uptime: 80 * time.Second, Data: []byte(`{"a":1}`)}, true},
		"tells no age":                           {same, &statexfer.State{Data: []byte(`{"a":1}`)}, false},
		"told no age":                            {func(e *entry) { e.uptime = 0 }, &statexfer.State{Uptime: time.Second, Data: []byte(`{"a":1}`)}, false},
		"empty":                                  {same, &statexfer.State{Data: []byte("{}")}, true},
		"empty, with spaces":                     {same, &statexfer.State{Data: []byte("{ }")}, true},
		"empty, as before":                       {func(e *entry) { e.saved.Checksum = emptyChecksum }, &statexfer.State{Data: []byte("{}")}, false},
		"empty, and nothing was stored":          {func(e *entry) { e.saved = statestore.Copy{} }, &statexfer.State{Data: []byte("{}")}, false},
		"a lower sequence":                       {same, &statexfer.State{HasPosition: true, Position: statexfer.Position{Epoch: 3, Sequence: 49}}, true},
		"the same sequence":                      {same, &statexfer.State{HasPosition: true, Position: statexfer.Position{Epoch: 3, Sequence: 50}}, false},
		"a lower sequence under a higher epoch":  {same, &statexfer.State{HasPosition: true, Position: statexfer.Position{Epoch: 4, Sequence: 1}}, false},
		"a higher sequence under a higher epoch": {same, &statexfer.State{HasPosition: true, Position: statexfer.Position{Epoch: 4, Sequence: 51}}, false},
	} {
		if got := remembered(test.change).suspects(test.state, noon.Add(30*time.Second)); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
