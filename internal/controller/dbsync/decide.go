package dbsync

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/message"
	"github.com/dory-io/dory/internal/undecodable"
)

// desired is one row, rendered.
type desired struct {
	id       string
	revision int64
	// key is the object that stands for the row, also where the row cannot be rendered.
	key types.NamespacedName
	// released says that the row does not own its object any more: its source is kubernetes.
	released bool
	// told is the sync_error that the row has.
	told string
	// knownName is the object's name as the row has it.
	knownName string
	// object is nil if err is not.
	object   client.Object
	warnings []string
	// err is what is wrong with the row.
	err error
	// unreadable says that err is about values that cannot be read, so that key may be another than the row means.
	unreadable bool
}

// situation is all that a decision about one row is made from.
type situation struct {
	row desired
	// current is the row's object: the one under the row's key, or else one of the row's id that lives elsewhere;
	// nil if there is none.
	current client.Object
	// currentID is the id that current says it stands for.
	currentID string
	// same says whether current is what the row asks for. Meaningless without both objects.
	same bool
	// noNamespace says that the row's namespace does not exist, or is about to be gone.
	noNamespace bool
	// refusal is why the API server did not take the row's object, in this very revision.
	refusal string
}

// compare fills in what the decision needs to know about the current object.
func (s *situation) compare(k kind) {
	s.currentID = k.idOf(s.current)
	if s.row.object != nil && !s.elsewhere() {
		s.row.object = k.fit(s.row.object, s.current)
		_, aside := undecodable.Of(s.current)
		s.same = !aside && k.same(s.row.object, s.current)
	}
}

// decision is what is to be done about one row.
type decision struct {
	// apply says to write the object.
	apply bool
	// release says to take our marks off the object, and leave the rest of it as it is.
	release bool
	// keep says to take a person's approval of the deletion off the object, because its row is there.
	keep bool
	// problem is why the row cannot become an object, or its object cannot follow it. Empty: all is well.
	problem string
	// condition is what DatabaseSynced should say on the object; nil for nothing. Only of an object that is ours.
	condition *metav1.Condition
}

// decide compares what a row asks for with what there is. It never answers to touch an object of somebody else.
func decide(s situation) decision {
	if problem := message.Shorten(s.aside(), maxProblemLength); problem != "" {
		return decision{problem: problem}
	}
	if s.row.released {
		return decision{release: s.current != nil && owned(s.current) && s.currentID == s.row.id}
	}
	if problem := message.Shorten(s.taken(), maxProblemLength); problem != "" {
		return decision{problem: problem}
	}
	keep := s.current != nil && owned(s.current) && s.current.GetDeletionTimestamp() == nil && hasApproval(s.current)
	if problem := message.Shorten(s.obstacle(), maxProblemLength); problem != "" {
		return decision{keep: keep, problem: problem, condition: rowInvalid(problem)}
	}
	// An object that is on its way out is left alone; its end is an event, and brings the row back here.
	stays := s.current != nil && (s.same || s.current.GetDeletionTimestamp() != nil)
	return decision{apply: !stays, keep: keep, condition: ignoredKeys(s.row.warnings)}
}

// aside says why nothing is written to the row's object: it is not known what is in it. Only one that is the row's own by all that
// can be read of it is written, as its author is the row alone.
func (s situation) aside() string {
	if s.current == nil {
		return ""
	}
	cause, yes := undecodable.Of(s.current)
	if !yes || s.rewritten() && s.refusal == "" {
		return ""
	}
	problem := fmt.Sprintf("%s cannot be decoded (%s) and stays as it is", describe(client.ObjectKeyFromObject(s.current)), cause)
	switch {
	case s.rewritten():
		problem += "; this row was tried: " + s.refusal
	case s.row.err != nil:
		problem += "; this row would be written over it, but: " + s.row.err.Error()
	}
	return problem + ". " + undecodable.Remedy(s.current)
}

// rewritten says whether the row's object is made again from the row although it cannot be decoded.
func (s situation) rewritten() bool {
	return s.row.object != nil && !s.row.released && owned(s.current) && s.currentID == s.row.id && !s.elsewhere()
}

// hasApproval says whether somebody said about an object that it may be deleted. Such a word is about the time in
// which the row is gone, and must not outlive it.
func hasApproval(object client.Object) bool {
	_, said := object.GetAnnotations()[doryv1alpha1.AnnotationDeletionApproved]
	return said
}

// maxProblemLength bounds what is written into a column, a condition and an event, in bytes. An event holds 1024.
const maxProblemLength = 1000

// taken says whose the object under the row's key is, if it is not the row's. An object of the row's own id may
// be taken over if it was made from the row, or if the row knows it by name: then its author moved the row from
// source kubernetes to database.
func (s situation) taken() string {
	switch {
	case s.current == nil:
		return ""
	case s.currentID != s.row.id && owned(s.current):
		return fmt.Sprintf("the object name %s is taken by the row with id %q: change the id of one of them", s.row.key.Name, s.currentID)
	case s.currentID == s.row.id && (onceOwned(s.current) || s.row.knownName == s.current.GetName()):
		return ""
	}
	return fmt.Sprintf("%s exists already and was not made from this row, its id is %q: delete that object, or change the id of this row",
		describe(s.row.key), s.currentID)
}

// elsewhere says whether the row's object lives under another key than the row's.
func (s situation) elsewhere() bool {
	return s.current != nil && client.ObjectKeyFromObject(s.current) != s.row.key
}

// moved says what to do about an object that lives elsewhere. It is never replaced by one under the row's key: the
// two would run at once, and the state of the old one would stay behind.
func (s situation) moved() string {
	here, id := client.ObjectKeyFromObject(s.current), shorten(s.row.id)
	if onceOwned(s.current) && here.Namespace != s.row.key.Namespace {
		return fmt.Sprintf("k8s_namespace of processor %q changed from %q to %q while it runs in %q, and its state would stay behind: change it back, "+
			"or set status = 'terminated', wait until %s is gone, then set the namespace and status = 'active'",
			id, here.Namespace, s.row.key.Namespace, here.Namespace, describe(here))
	}
	return fmt.Sprintf("processor %q runs already as %s, and would run a second time as %s, without its state: set source = 'kubernetes' to leave it "+
		"to Kubernetes, or delete that object and its state", id, describe(here), describe(s.row.key))
}

// obstacle says what keeps the row from its object.
func (s situation) obstacle() string {
	switch {
	case s.elsewhere() && !s.row.unreadable:
		return s.moved()
	case s.row.err != nil:
		return s.row.err.Error()
	case s.current == nil && s.noNamespace:
		return fmt.Sprintf("namespace %q does not exist, or is being deleted: create it, or change k8s_namespace", s.row.key.Namespace)
	}
	return s.refusal
}

// settled says that nothing is to be done: the object, its condition and the row's sync_error are as they should.
func (d decision) settled(s situation) bool {
	return !d.apply && !d.release && !d.keep && d.problem == s.row.told && !d.conditionDiffers(s.current)
}

// conditionDiffers says whether the condition on the object is another than it should be. Only an object that is
// ours has one from us.
func (d decision) conditionDiffers(current client.Object) bool {
	p, ok := current.(*doryv1alpha1.Processor)
	if !ok || p == nil || !owned(p) || (d.condition == nil && d.problem != "") {
		return false
	}
	return !sameCondition(p, d.condition)
}

// sameCondition says whether DatabaseSynced is as it should be, and about the spec that there is.
func sameCondition(p *doryv1alpha1.Processor, want *metav1.Condition) bool {
	have := meta.FindStatusCondition(p.Status.Conditions, doryv1alpha1.ConditionDatabaseSynced)
	if want == nil || have == nil {
		return want == nil && have == nil
	}
	return want.Status == have.Status && want.Reason == have.Reason && want.Message == have.Message && have.ObservedGeneration == p.Generation
}

func rowInvalid(problem string) *metav1.Condition {
	return &metav1.Condition{
		Type: doryv1alpha1.ConditionDatabaseSynced, Status: metav1.ConditionFalse, Reason: doryv1alpha1.ReasonRowInvalid,
		Message: "The last good spec stays, because the row cannot be applied: " + problem,
	}
}

func ignoredKeys(warnings []string) *metav1.Condition {
	if len(warnings) == 0 {
		return nil
	}
	return &metav1.Condition{
		Type: doryv1alpha1.ConditionDatabaseSynced, Status: metav1.ConditionTrue, Reason: doryv1alpha1.ReasonTemplateKeysIgnored,
		Message: "All is applied but these parts of the template: " + message.Shorten(strings.Join(warnings, "; "), maxWarningsLength),
	}
}

func describe(key types.NamespacedName) string {
	if key.Namespace == "" {
		return "EdgeNode " + key.Name
	}
	return "Processor " + key.Namespace + "/" + key.Name
}
