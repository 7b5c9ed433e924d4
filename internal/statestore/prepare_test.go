package statestore

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
	"github.com/dory-io/dory/internal/statexfer"
)

// start is a Processor whose next instance is about to start.
type start struct {
	*world

	url       string
	database  *tripping
	processor *doryv1alpha1.Processor
	recorder  *events.FakeRecorder
}

func newStart(t *testing.T, policy doryv1alpha1.OnMissing) *start {
	t.Helper()
	opened, url := openDatabase(t)
	s := &start{url: url, database: &tripping{Database: opened}, recorder: events.NewFakeRecorder(10)}
	s.world = newWorld(t, s.database)
	s.processor = &doryv1alpha1.Processor{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: "cam"},
		Spec:       doryv1alpha1.ProcessorSpec{ProcessorID: "Cam_1", State: &doryv1alpha1.ProcessorState{OnMissing: policy}},
	}
	if got := KeyOf(s.processor); got != s.key || got.ConfigMap != pod.StateConfigMapName(s.processor) {
		t.Fatalf("key %+v", got)
	}
	epoch := &doryv1alpha1.ProcessorEpoch{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.key.Namespace, Name: doryv1alpha1.ObjectName("Cam_1")},
		Spec:       doryv1alpha1.ProcessorEpochSpec{ProcessorID: "Cam_1", Epoch: 3, Holder: "pod-3", Reason: doryv1alpha1.EpochStart, IssuedAt: metav1.NewTime(noon)},
	}
	if err := apiServer.Create(t.Context(), epoch); err != nil {
		t.Fatal(err)
	}
	return s
}

// record is what the checkpoint controller does after a save.
func (s *start) record(saved Saved) {
	s.processor.Status.Checkpoint = &doryv1alpha1.ProcessorCheckpoint{
		Time: metav1.NewTime(saved.Version.Time.Truncate(time.Second)), Epoch: saved.Version.Epoch,
		Checksum: saved.Checksum, SizeBytes: saved.Size, Storage: saved.Storage,
	}
	if saved.Version.Sequence > 0 {
		s.processor.Status.Checkpoint.Sequence = &saved.Version.Sequence
	}
}

func (s *start) prepare() (Result, string, error) {
	s.t.Helper()
	result, err := NewPreparer(s.Store, apiServer, s.recorder).Prepare(s.t.Context(), s.processor)
	var told []string
	for {
		select {
		case event := <-s.recorder.Events:
			told = append(told, event)
		default:
			return result, strings.Join(told, "\n"), err
		}
	}
}

func TestPrepare(t *testing.T) {
	const (
		require = doryv1alpha1.OnMissingRequire
		latest  = doryv1alpha1.OnMissingPreferLatest
		discard = doryv1alpha1.OnMissingDiscard
	)
	deleteConfigMap := func(s *start) {
		if err := apiServer.Delete(s.t.Context(), s.configMap(stateName)); err != nil {
			s.t.Fatal(err)
		}
	}
	damageConfigMap := func(s *start) {
		s.change(stateName, func(cm *corev1.ConfigMap) { cm.Data["state"] = strings.Replace(cm.Data["state"], "3/5", "3/6", 1) })
	}
	truncateConfigMap := func(s *start) {
		s.change(stateName, func(cm *corev1.ConfigMap) { cm.Data["state"] = cm.Data["state"][:20] })
	}
	small := func(s *start) { s.record(s.save(s.state(3, 5))) }
	inDatabase := func(s *start) { s.save(s.state(3, 4)); s.record(s.save(s.state(3, 5, large(2)))) }
	shrunk := func(s *start) {
		// In the database, although it would fit into the ConfigMap.
		inDatabase(s)
		target, err := copyOf(SaveRequest{Document: s.state(3, 6)}, []byte(encode(s.t, s.state(3, 6))))
		if err != nil {
			s.t.Fatal(err)
		}
		packed, err := s.packer.pack([]byte(encode(s.t, s.state(3, 6))))
		if err != nil {
			s.t.Fatal(err)
		}
		saved, err := s.saveInDatabase(s.t.Context(), SaveRequest{Key: s.key}, target, packed)
		if err != nil || !saved.Written {
			s.t.Fatalf("%+v, %v", saved, err)
		}
		s.record(saved)
	}
	none := func(*start) {}

	for name, test := range map[string]struct {
		given    func(*start)
		fault    func(*start)
		policies []doryv1alpha1.OnMissing
		// found is the newest that can be read, inConfigMap what the SDK will find.
		found, inConfigMap string
		refused, elsewhere bool
		says, event        string
		// fails is the error for which the start is tried again.
		fails string
	}{
		"nothing was ever stored":             {given: none, fault: none, policies: []doryv1alpha1.OnMissing{require, latest, discard}},
		"the state is where the SDK looks":    {given: small, fault: none, policies: []doryv1alpha1.OnMissing{require, latest}, found: "3/5", inConfigMap: "3/5"},
		"a later save of the same pod":        {given: small, fault: func(s *start) { s.blindSave(s.state(3, 9, blind("pod-3", noon.Add(time.Hour)))) }, policies: []doryv1alpha1.OnMissing{require, latest}, found: "3/9", inConfigMap: "3/9"},
		"a late save of an older pod":         {given: small, fault: func(s *start) { s.blindSave(s.state(2, 9, blind("pod-2", noon.Add(time.Hour)))) }, policies: []doryv1alpha1.OnMissing{require}, found: "2/9", inConfigMap: "2/9", refused: true, says: "epoch 3 sequence 5"},
		"the state is too large for the SDK":  {given: inDatabase, fault: none, policies: []doryv1alpha1.OnMissing{require, latest}, found: "3/5", inConfigMap: "3/4", elsewhere: true},
		"the state fits and is elsewhere":     {given: shrunk, fault: none, policies: []doryv1alpha1.OnMissing{require, latest}, found: "3/6", inConfigMap: "3/6", event: "Normal StatePlaced"},
		"damaged, with a newer one elsewhere": {given: shrunk, fault: truncateConfigMap, policies: []doryv1alpha1.OnMissing{latest}, found: "3/6", inConfigMap: "3/6", event: "Warning StateOutdated"},

		"deleted, required":                      {given: small, fault: deleteConfigMap, policies: []doryv1alpha1.OnMissing{require}, refused: true, says: "is not there"},
		"deleted":                                {given: small, fault: deleteConfigMap, policies: []doryv1alpha1.OnMissing{latest}, event: "Warning StateOutdated"},
		"discarded":                              {given: small, fault: deleteConfigMap, policies: []doryv1alpha1.OnMissing{discard}},
		"bad checksum, required":                 {given: small, fault: damageConfigMap, policies: []doryv1alpha1.OnMissing{require}, refused: true, says: "checksum"},
		"bad checksum":                           {given: small, fault: damageConfigMap, policies: []doryv1alpha1.OnMissing{latest}, event: "Warning StateOutdated"},
		"bad checksum, never recorded, required": {given: func(s *start) { s.save(s.state(3, 5)) }, fault: damageConfigMap, policies: []doryv1alpha1.OnMissing{require}, refused: true, says: "checksum"},
		"truncated, required":                    {given: small, fault: truncateConfigMap, policies: []doryv1alpha1.OnMissing{require}, refused: true, says: "malformed"},
		"row truncated, required": {
			given: inDatabase, fault: func(s *start) {
				execute(s.t, s.url, `UPDATE processor_checkpoints SET document = substring(document for 9)`)
			},
			policies: []doryv1alpha1.OnMissing{require}, found: "3/4", inConfigMap: "3/4", refused: true, says: "decompressing",
		},
		"database away, required":  {given: inDatabase, fault: func(s *start) { s.database.away.Store(true) }, policies: []doryv1alpha1.OnMissing{require}, inConfigMap: "3/4", fails: "in the database, which does not answer"},
		"database away":            {given: inDatabase, fault: func(s *start) { s.database.away.Store(true) }, policies: []doryv1alpha1.OnMissing{latest}, inConfigMap: "3/4", fails: "in the database, which does not answer"},
		"database away, discarded": {given: inDatabase, fault: func(s *start) { s.database.away.Store(true) }, policies: []doryv1alpha1.OnMissing{discard}, inConfigMap: "3/4"},
		"database away, a later save of the same pod": {given: inDatabase, fault: func(s *start) {
			s.database.away.Store(true)
			s.blindSave(s.state(3, 9, blind("pod-3", noon.Add(time.Hour))))
		}, policies: []doryv1alpha1.OnMissing{require, latest}, found: "3/9", inConfigMap: "3/9"},
		"database away once it was asked": {
			given: func(s *start) { s.save(s.state(3, 4)); s.save(s.state(3, 5, large(2))) }, fault: func(s *start) { s.database.silent = true },
			policies: []doryv1alpha1.OnMissing{require, latest}, inConfigMap: "3/4", fails: "in the database, which does not answer",
		},
		"database away, and nothing was ever in it": {given: small, fault: func(s *start) { s.database.away.Store(true) }, policies: []doryv1alpha1.OnMissing{require, latest}, found: "3/5", inConfigMap: "3/5"},
	} {
		for _, policy := range test.policies {
			t.Run(name+"/"+string(policy), func(t *testing.T) {
				s := newStart(t, policy)
				test.given(s)
				test.fault(s)
				wantForeseen(t, s, test.refused, test.fails)
				result, told, err := s.prepare()
				if test.fails != "" {
					wantSays(t, err, test.fails)
				} else if err != nil {
					t.Fatal(err)
				}
				if result.Refused() != test.refused || result.Elsewhere != test.elsewhere {
					t.Errorf("refused %v (%s), elsewhere %v; want %v and %v", result.Refused(), result.Message, result.Elsewhere, test.refused, test.elsewhere)
				}
				if test.refused && (result.Reason != doryv1alpha1.ReasonStateMissing || !strings.Contains(result.Message, test.says) || !strings.Contains(result.Message, "set spec.state.onMissing")) {
					t.Errorf("%s: %s, want it to say %q and what to do", result.Reason, result.Message, test.says)
				}
				if !strings.HasPrefix(told, test.event) || (test.event == "") != (told == "") {
					t.Errorf("events %q, want %q", told, test.event)
				}
				if policy != discard && (result.Found == nil) != (test.found == "") {
					t.Errorf("found %v, want %q", result.Found, test.found)
				}
				if result.Found != nil && at(result.Found.Version) != test.found && !strings.Contains(name, "save of") {
					t.Errorf("found %s, want %q", result.Found.Version, test.found)
				}
				s.wantInConfigMap(test.inConfigMap)
			})
		}
	}
}

// wantForeseen: what Prepare will say can be known before, and to ask changes and tells nothing.
func wantForeseen(t *testing.T, s *start, refused bool, fails string) {
	t.Helper()
	before := s.writes
	result, err := NewPreparer(s.Store, apiServer, s.recorder).Foresee(t.Context(), s.processor)
	if (err == nil) != (fails == "") || (err != nil && !strings.Contains(err.Error(), fails)) || result.Refused() != refused {
		t.Errorf("foreseen: refused %v (%s), %v; want %v and %q", result.Refused(), result.Message, err, refused, fails)
	}
	if s.writes != before || len(s.recorder.Events) > 0 {
		t.Errorf("it wrote %d times and told %d events", s.writes-before, len(s.recorder.Events))
	}
	if s.database.silent {
		s.database.away.Store(false) // So that it goes away once more.
	}
}

func encode(t *testing.T, d statexfer.Document) string {
	t.Helper()
	text, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// wantInConfigMap: what an SDK finds when it starts.
func (s *start) wantInConfigMap(want string) {
	s.t.Helper()
	if want == "" {
		return
	}
	d, err := statexfer.FromConfigMap(s.configMap(stateName))
	if err != nil || !strings.Contains(string(d.Payload), `"`+want+`"`) {
		s.t.Errorf("the SDK finds %s, %v, want %s", d.Payload, err, want)
	}
}

// TestPrepareCostsLittleTheFirstTime: thousands of processors may start for the first time at once. The two places where a
// backup may have brought back a state are looked at all the same.
func TestPrepareCostsLittleTheFirstTime(t *testing.T) {
	w := newWorld(t, nil)
	p := &doryv1alpha1.Processor{ObjectMeta: metav1.ObjectMeta{Namespace: w.key.Namespace, Name: "cam"}}
	result, err := NewPreparer(w.Store, apiServer, events.NewFakeRecorder(1)).Prepare(t.Context(), p)
	if err != nil || result.Refused() || w.reads > 2 || w.writes > 0 {
		t.Errorf("%+v, %v, %d reads, %d writes", result, err, w.reads, w.writes)
	}
}

func TestPrepareWithoutAnAPIServer(t *testing.T) {
	s := newStart(t, doryv1alpha1.OnMissingPreferLatest)
	s.record(s.save(s.state(3, 5)))
	s.diesAt, s.writes = 1, 1
	if _, _, err := s.prepare(); !errors.Is(err, errDead) {
		t.Errorf("%v: whoever cannot look must not start anything", err)
	}
}

func TestPrepareMeetsTheStateOfAnotherProcessor(t *testing.T) {
	s := newStart(t, doryv1alpha1.OnMissingPreferLatest)
	s.save(s.state(3, 5, large(2)))
	s.blindSave(s.state(1, 1, func(d *statexfer.Document) { d.Metadata.ProcessorID = "other" }))
	result, told, err := s.prepare()
	if err != nil || !result.Elsewhere || !strings.Contains(told, "StateOutdated") {
		t.Errorf("%+v, %q, %v", result, told, err)
	}
	s.wantInConfigMap("1/1")
}

// TestOutdatedGoesByWholeSeconds: the status rounds.
func TestOutdatedGoesByWholeSeconds(t *testing.T) {
	recorded := version(3, 0, noon)
	stranger := func(at time.Time) *Copy {
		return &Copy{Version: Version{Time: at, uncounted: true}, PodName: "stranger"}
	}
	next, held, last := Lineage{Epoch: 4, Holder: "d"}, Lineage{Epoch: 3, Holder: "c"}, Lineage{Epoch: 4, Holder: "d", Instance: "c", InstanceEpoch: 3}
	for name, test := range map[string]struct {
		newest  *Copy
		lineage Lineage
		want    bool
	}{
		"nothing":                 {nil, next, true},
		"the same":                {&Copy{Version: version(3, 0, noon.Add(300*time.Millisecond))}, next, false},
		"earlier":                 {&Copy{Version: version(3, 0, noon.Add(-time.Second))}, next, true},
		"earlier, the same state": {&Copy{Version: version(2, 0, noon.Add(-time.Second)), Checksum: "c"}, next, false},
		"later":                   {&Copy{Version: version(3, 0, noon.Add(time.Minute))}, next, false},
		"later, of an older pod":  {&Copy{Version: version(2, 0, noon.Add(time.Minute))}, next, true},

		"a stranger's, as late":                              {stranger(noon.Add(300 * time.Millisecond)), next, false},
		"a stranger's, later":                                {stranger(noon.Add(time.Minute)), next, false},
		"a stranger's, earlier":                              {stranger(noon.Add(-time.Second)), next, true},
		"a stranger's, later, recorded by the holder":        {stranger(noon.Add(time.Minute)), held, true},
		"a stranger's, later, recorded by the one before it": {stranger(noon.Add(time.Minute)), last, true},
	} {
		if got := outdated(test.newest, recorded, "c", test.lineage); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestWhatAnInstanceSavedAtItsEndIsNotOutdated although an epoch was issued since, to a pod that nobody could create or that
// ended before its first checkpoint.
func TestWhatAnInstanceSavedAtItsEndIsNotOutdated(t *testing.T) {
	for name, instance := range map[string]*doryv1alpha1.ProcessorInstance{
		"the status remembers it": {Pod: "pod-2", Epoch: 2},
		"nobody remembers it":     nil,
	} {
		t.Run(name, func(t *testing.T) {
			s := newStart(t, doryv1alpha1.OnMissingRequire)
			s.record(s.save(s.state(2, 0)))
			s.blindSave(s.state(2, 9, blind("pod-2", noon.Add(time.Hour))))
			s.processor.Status.Instance = instance
			result, told, err := s.prepare()
			if err != nil || result.Refused() || told != "" {
				t.Errorf("%+v, %q, %v", result, told, err)
			}
			s.wantInConfigMap("2/9")
		})
	}
}
