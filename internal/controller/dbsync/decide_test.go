package dbsync

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/store"
	"github.com/dory-io/dory/internal/undecodable"
)

// object makes a database-owned Processor of an id, and changes it.
func object(id string, changes ...func(*doryv1alpha1.Processor)) *doryv1alpha1.Processor {
	p := &doryv1alpha1.Processor{}
	p.Namespace, p.Name = "default", "cam-1"
	p.Labels = map[string]string{doryv1alpha1.LabelSource: doryv1alpha1.SourceDatabase}
	p.Annotations = map[string]string{doryv1alpha1.AnnotationRowRevision: "1"}
	p.Spec.ProcessorID = id
	for _, change := range changes {
		change(p)
	}
	return p
}

func unlabelled(p *doryv1alpha1.Processor) { p.Labels, p.Annotations = nil, nil }

func withoutLabel(p *doryv1alpha1.Processor) { p.Labels = nil }

func leaving(p *doryv1alpha1.Processor) { p.DeletionTimestamp = &metav1.Time{Time: start()} }

func approved(p *doryv1alpha1.Processor) {
	p.Annotations[doryv1alpha1.AnnotationDeletionApproved] = "true"
}

func aside(p *doryv1alpha1.Processor) { undecodable.Mark(p, "why") }

func in(namespace string) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) { p.Namespace = namespace }
}

func named(name string) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) { p.Name = name }
}

func saying(status metav1.ConditionStatus, reason, message string) func(*doryv1alpha1.Processor) {
	return func(p *doryv1alpha1.Processor) {
		p.Status.Conditions = []metav1.Condition{{Type: doryv1alpha1.ConditionDatabaseSynced, Status: status, Reason: reason, Message: message}}
	}
}

func TestDecide(t *testing.T) {
	good := desired{id: "cam-1", key: types.NamespacedName{Namespace: "default", Name: "cam-1"}, object: object("cam-1")}
	bad := good
	bad.object, bad.err = nil, errors.New("broken")
	warned := good
	warned.warnings = []string{"unknown key x"}
	known := good
	known.knownName = "cam-1"
	handedOver := good
	handedOver.knownName = "mine"
	released := desired{id: "cam-1", key: good.key, released: true}
	told := bad
	told.told = "broken"
	ofBroken := saying("False", doryv1alpha1.ReasonRowInvalid, "The last good spec stays, because the row cannot be applied: broken")

	tests := map[string]struct {
		situation situation
		apply     bool
		release   bool
		keep      bool
		problem   string // a part of it
		reason    string
		settled   bool
	}{
		"a new row":                                         {situation: situation{row: good}, apply: true},
		"an unchanged row":                                  {situation: situation{row: good, current: object("cam-1"), same: true}, settled: true},
		"a changed row":                                     {situation: situation{row: good, current: object("cam-1")}, apply: true},
		"an object on its way out":                          {situation: situation{row: good, current: object("cam-1", leaving)}, settled: true},
		"a bad row without an object":                       {situation: situation{row: bad}, problem: "broken", reason: doryv1alpha1.ReasonRowInvalid},
		"a bad row keeps its object":                        {situation: situation{row: bad, current: object("cam-1")}, problem: "broken", reason: doryv1alpha1.ReasonRowInvalid},
		"a bad row that was told":                           {situation: situation{row: told}, problem: "broken", reason: doryv1alpha1.ReasonRowInvalid, settled: true},
		"a bad row, told in one place of two":               {situation: situation{row: told, current: object("cam-1")}, problem: "broken", reason: doryv1alpha1.ReasonRowInvalid},
		"a bad row, told in both places":                    {situation: situation{row: told, current: object("cam-1", ofBroken)}, problem: "broken", reason: doryv1alpha1.ReasonRowInvalid, settled: true},
		"a mended row":                                      {situation: situation{row: good, current: object("cam-1", ofBroken), same: true}},
		"a row that returns to a held object":               {situation: situation{row: good, current: object("cam-1", saying("False", doryv1alpha1.ReasonDeletionHeld, "")), same: true}},
		"no namespace":                                      {situation: situation{row: good, noNamespace: true}, problem: `namespace "default" does not exist`, reason: doryv1alpha1.ReasonRowInvalid},
		"no namespace, says the cache, and an object in it": {situation: situation{row: good, current: object("cam-1"), same: true, noNamespace: true}, settled: true},
		"a refused row":                                     {situation: situation{row: good, refusal: "too odd"}, problem: "too odd", reason: doryv1alpha1.ReasonRowInvalid},
		"ignored keys, not told yet":                        {situation: situation{row: warned, current: object("cam-1"), same: true}, reason: doryv1alpha1.ReasonTemplateKeysIgnored},
		"ignored keys, told":                                {situation: situation{row: warned, current: object("cam-1", saying("True", doryv1alpha1.ReasonTemplateKeysIgnored, "All is applied but these parts of the template: unknown key x")), same: true}, reason: doryv1alpha1.ReasonTemplateKeysIgnored, settled: true},
		"ignored keys, told about an older spec":            {situation: situation{row: warned, current: object("cam-1", saying("True", doryv1alpha1.ReasonTemplateKeysIgnored, "All is applied but these parts of the template: unknown key x"), func(p *doryv1alpha1.Processor) { p.Generation++ }), same: true}, reason: doryv1alpha1.ReasonTemplateKeysIgnored},
		"the name is another row's":                         {situation: situation{row: good, current: object("other")}, problem: `taken by the row with id "other"`},
		"the name is a person's":                            {situation: situation{row: good, current: object("other", unlabelled)}, problem: "delete that object"},
		"the id and the name are a person's":                {situation: situation{row: good, current: object("cam-1", unlabelled)}, problem: "delete that object"},
		"the row knows a person's object":                   {situation: situation{row: known, current: object("cam-1", unlabelled)}, apply: true},
		"the row knows another's name":                      {situation: situation{row: known, current: object("other", unlabelled)}, problem: "delete that object"},
		"somebody took the label away":                      {situation: situation{row: good, current: object("cam-1", withoutLabel)}, apply: true},
		"a row that moved":                                  {situation: situation{row: good, current: object("cam-1", in("old"))}, problem: `k8s_namespace of processor "cam-1" changed from "old" to "default" while it runs in "old"`, reason: doryv1alpha1.ReasonRowInvalid},
		"a row that moved to no namespace":                  {situation: situation{row: good, current: object("cam-1", in("old")), noNamespace: true}, problem: "wait until Processor old/cam-1 is gone", reason: doryv1alpha1.ReasonRowInvalid},
		"a row that moved, its object is leaving":           {situation: situation{row: good, current: object("cam-1", in("old"), leaving)}, problem: "wait until", reason: doryv1alpha1.ReasonRowInvalid},
		"a row that moved and is bad":                       {situation: situation{row: bad, current: object("cam-1", in("old"))}, problem: "changed from", reason: doryv1alpha1.ReasonRowInvalid},
		"a row whose person's object has another name":      {situation: situation{row: handedOver, current: object("cam-1", unlabelled, named("mine"))}, problem: "runs already as Processor default/mine", reason: doryv1alpha1.ReasonRowInvalid},
		"a released row that moved takes its marks off":     {situation: situation{row: released, current: object("cam-1", in("old"))}, release: true},
		"an approval of a deletion, and the row is there":   {situation: situation{row: good, current: object("cam-1", approved), same: true}, keep: true},
		"an approval, and a bad row":                        {situation: situation{row: bad, current: object("cam-1", approved)}, keep: true, problem: "broken", reason: doryv1alpha1.ReasonRowInvalid},
		"an approval, and the object is leaving":            {situation: situation{row: good, current: object("cam-1", approved, leaving)}, settled: true},
		"a released row takes its marks off":                {situation: situation{row: released, current: object("cam-1")}, release: true},
		"an object that cannot be decoded":                  {situation: situation{row: good, current: object("cam-1", aside)}, apply: true},
		"it still cannot be decoded":                        {situation: situation{row: good, current: object("cam-1", aside), refusal: "still not"}, problem: "cannot be decoded (why) and stays as it is; this row was tried: still not. It is written again from its row"},
		"it cannot be decoded, and is a person's":           {situation: situation{row: known, current: object("cam-1", unlabelled, aside)}, problem: "Mend the field with kubectl edit processor -n default cam-1"},
		"it cannot be decoded, and the id is another":       {situation: situation{row: good, current: object("other", aside)}, problem: "cannot be decoded (why)"},
		"it cannot be decoded, and lives elsewhere":         {situation: situation{row: good, current: object("cam-1", aside, in("old"))}, problem: "cannot be decoded (why)"},
		"it cannot be decoded, and is leaving":              {situation: situation{row: good, current: object("cam-1", aside, leaving)}, settled: true},
		"a bad row, its object cannot be decoded":           {situation: situation{row: bad, current: object("cam-1", aside, approved)}, problem: "would be written over it, but: broken"},
		"a released row, its object cannot be decoded":      {situation: situation{row: released, current: object("cam-1", aside)}, problem: "cannot be decoded (why)"},
		"a released row, done":                              {situation: situation{row: released, current: object("cam-1", unlabelled)}, settled: true},
		"a released row without an object":                  {situation: situation{row: released}, settled: true},
		"a released row and another's object":               {situation: situation{row: released, current: object("other")}, settled: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			at := tt.situation
			if at.current != nil {
				at.currentID = processors{}.idOf(at.current)
			}
			got := decide(at)
			if got.apply != tt.apply || got.release != tt.release || got.keep != tt.keep || got.settled(at) != tt.settled {
				t.Errorf("decide = %+v, settled %v; want apply %v, release %v, keep %v, settled %v", got, got.settled(at), tt.apply, tt.release, tt.keep, tt.settled)
			}
			if !strings.Contains(got.problem, tt.problem) || (got.problem == "") != (tt.problem == "") {
				t.Errorf("problem is %q, want %q", got.problem, tt.problem)
			}
			reason := ""
			if got.condition != nil {
				reason = got.condition.Reason
			}
			if reason != tt.reason {
				t.Errorf("condition is %+v, want reason %q", got.condition, tt.reason)
			}
		})
	}
}

func TestProblemsFitIntoAnEvent(t *testing.T) {
	long := desired{id: "x", err: errors.New(strings.Repeat("é", 5000))}
	if got := decide(situation{row: long}).problem; len(got) > maxProblemLength || !strings.HasSuffix(got, "…") {
		t.Errorf("the problem has %d bytes, want at most %d", len(got), maxProblemLength)
	}
	other := object(strings.Repeat("é", 512))
	if got := decide(situation{row: desired{id: "x"}, current: other, currentID: other.ID()}).problem; len(got) > maxProblemLength {
		t.Errorf("the problem has %d bytes, want at most %d", len(got), maxProblemLength)
	}
}

func TestOrphans(t *testing.T) {
	at := func(namespace, id string, changes ...func(*doryv1alpha1.Processor)) *doryv1alpha1.Processor {
		return object(id, append(changes, func(p *doryv1alpha1.Processor) { p.Namespace, p.Name = namespace, id })...)
	}
	key := func(namespace, name string) types.NamespacedName {
		return types.NamespacedName{Namespace: namespace, Name: name}
	}
	tests := map[string]struct {
		objects []*doryv1alpha1.Processor
		wanted  map[string]types.NamespacedName
		want    []types.NamespacedName
		total   int
	}{
		"none":          {nil, nil, nil, 0},
		"all have rows": {[]*doryv1alpha1.Processor{at("a", "x"), at("a", "y")}, map[string]types.NamespacedName{"x": key("a", "x"), "y": key("a", "y")}, nil, 2},
		"a row is gone": {[]*doryv1alpha1.Processor{at("a", "x"), at("a", "y")}, map[string]types.NamespacedName{"x": key("a", "x")}, []types.NamespacedName{key("a", "y")}, 2},
		"its row is gone, but it cannot be decoded": {[]*doryv1alpha1.Processor{at("a", "x", aside), at("a", "y")}, nil, []types.NamespacedName{key("a", "y")}, 2},
		"of people":                        {[]*doryv1alpha1.Processor{at("a", "x", unlabelled)}, nil, nil, 0},
		"being deleted":                    {[]*doryv1alpha1.Processor{at("a", "x", leaving)}, nil, nil, 0},
		"moved, and not there yet":         {[]*doryv1alpha1.Processor{at("a", "x")}, map[string]types.NamespacedName{"x": key("b", "x")}, nil, 1},
		"both exist":                       {[]*doryv1alpha1.Processor{at("a", "x"), at("b", "x")}, map[string]types.NamespacedName{"x": key("b", "x")}, []types.NamespacedName{key("a", "x")}, 2},
		"moved to where a person's is":     {[]*doryv1alpha1.Processor{at("a", "x"), at("b", "x", unlabelled)}, map[string]types.NamespacedName{"x": key("b", "x")}, nil, 1},
		"moved to where another row's is":  {[]*doryv1alpha1.Processor{at("a", "x"), object("y", func(p *doryv1alpha1.Processor) { p.Namespace, p.Name = "b", "x" })}, map[string]types.NamespacedName{"x": key("b", "x"), "y": key("b", "x")}, nil, 2},
		"a row with an error is a row too": {[]*doryv1alpha1.Processor{at("a", "x")}, map[string]types.NamespacedName{"x": key("a", "x")}, nil, 1},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inv := inventory{byKey: map[types.NamespacedName]client.Object{}, idOf: processors{}.idOf}
			for _, o := range tt.objects {
				inv.byKey[client.ObjectKeyFromObject(o)] = o
			}
			orphans, total := inv.orphans(tt.wanted)
			var got []types.NamespacedName
			for _, o := range orphans {
				got = append(got, client.ObjectKeyFromObject(o))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || total != tt.total {
				t.Errorf("orphans (-want +got):\n%stotal is %d, want %d", diff, total, tt.total)
			}
		})
	}
}

// The row of a Processor that cannot be decoded is neither written nor ended, also where its id is among what cannot.
func TestRowsOfUndecodableProcessorsStay(t *testing.T) {
	at := func(name, id string) doryv1alpha1.Processor {
		return *object(id, unlabelled, named(name), aside)
	}
	rows := []store.KubernetesProcessor{{ID: "x", Namespace: "default", Name: "x"}, {ID: "Y_1", Namespace: "default", Name: "y"}}
	settled, differing := compareRows([]doryv1alpha1.Processor{at("x", ""), at("y", ""), at("z", "")}, rows)
	if len(settled) != 0 || len(differing) != 0 {
		t.Errorf("settled %v, differing %v", settled, differing)
	}
}

func TestSettlement(t *testing.T) {
	row := desired{id: "cam-1", key: types.NamespacedName{Namespace: "default", Name: "cam-1"}, knownName: "mine"}
	for name, tt := range map[string]struct {
		objects []client.Object
		want    string
	}{
		"none":                          {nil, ""},
		"only where it belongs":         {[]client.Object{object("cam-1")}, ""},
		"in another namespace":          {[]client.Object{object("cam-1", in("old"))}, "old/cam-1"},
		"without its label":             {[]client.Object{object("cam-1", in("old"), withoutLabel)}, "old/cam-1"},
		"a person's that the row knows": {[]client.Object{object("cam-1", unlabelled, named("mine"))}, "default/mine"},
		"a person's of the same id":     {[]client.Object{object("cam-1", unlabelled, named("other"))}, ""},
		"always the same of several":    {[]client.Object{object("cam-1", in("c")), object("cam-1", in("b")), object("cam-1", in("d"))}, "b/cam-1"},
	} {
		got := ""
		if o := settlement(row, tt.objects); o != nil {
			got = client.ObjectKeyFromObject(o).String()
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

func TestSplitApproved(t *testing.T) {
	yes := object("yes", func(p *doryv1alpha1.Processor) { p.Annotations[doryv1alpha1.AnnotationDeletionApproved] = "true" })
	no := object("no", func(p *doryv1alpha1.Processor) { p.Annotations[doryv1alpha1.AnnotationDeletionApproved] = "false" })
	approved, rest := splitApproved([]client.Object{no, yes, object("none")})
	if len(approved) != 1 || approved[0] != client.Object(yes) || len(rest) != 2 {
		t.Errorf("approved %v, rest %v; want only the one that says true", approved, rest)
	}
}
