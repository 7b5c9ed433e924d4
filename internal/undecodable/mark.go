package undecodable

import (
	"errors"
	"fmt"
	"maps"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// mark is the annotation with the cause. The API server refuses the name, for its space.
const mark = "dory.io/is undecodable"

// Of says why an object could not be decoded.
func Of(o client.Object) (cause string, yes bool) {
	cause, yes = o.GetAnnotations()[mark]
	return cause, yes
}

// Mark says in an object, as long as it is in memory, that it could not be decoded.
func Mark(o client.Object, cause string) {
	annotations := map[string]string{mark: cause}
	maps.Copy(annotations, o.GetAnnotations())
	o.SetAnnotations(annotations)
}

// Error says that an object is there and cannot be decoded.
type Error struct {
	// Object is what could be read of it. It is for reading only, and its spec and status are incomplete.
	Object client.Object
	// Cause names the fields, and says what Go says about them.
	Cause string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("%s cannot be decoded (%s), and until it can nothing is done about it. %s", Describe(e.Object), e.Cause, Remedy(e.Object))
}

// Remedy says what a person can do about an object that is left aside, and is allowed to do: the admission policies refuse most
// changes of an epoch, and of what comes from a row.
func Remedy(o client.Object) string {
	const asTheOperator = "kubectl --as=system:serviceaccount:dory-system:dory-operator"
	kind, name := strings.ToLower(KindOf(o)), o.GetName()
	if o.GetNamespace() != "" {
		name = "-n " + o.GetNamespace() + " " + name
	}
	switch {
	case kind == "processorepoch":
		return fmt.Sprintf("Only the operator may write it, so as an administrator mend the field in the file of kubectl get %s %s -o yaml > epoch.yaml, "+
			"then %s replace -f epoch.yaml (dory-system is the operator's namespace)", kind, name, asTheOperator)
	case o.GetLabels()[doryv1alpha1.LabelSource] == doryv1alpha1.SourceDatabase:
		return fmt.Sprintf("It is written again from its row, if the row can be applied; else mend the field as the operator (%s edit %s %s), or delete the object",
			asTheOperator, kind, name)
	}
	return fmt.Sprintf("Mend the field with kubectl edit %s %s, or delete the object", kind, name)
}

// As finds an Error in err.
func As(err error) (*Error, bool) { return errors.AsType[*Error](err) }

// Is says whether an error is about an object that is left aside.
func Is(err error) bool {
	aside, _ := As(err)
	return aside != nil
}

// check makes the mark an error.
func check(o client.Object) error {
	if cause, yes := Of(o); yes {
		return &Error{o, cause}
	}
	return nil
}

// Describe names an object for people.
func Describe(o client.Object) string {
	name := o.GetName()
	if o.GetNamespace() != "" {
		name = o.GetNamespace() + "/" + name
	}
	return KindOf(o) + " " + name
}

// KindOf is the kind of an object of ours; empty for any other.
func KindOf(o any) string {
	switch o.(type) {
	case *doryv1alpha1.Processor:
		return "Processor"
	case *doryv1alpha1.ProcessorMigration:
		return "ProcessorMigration"
	case *doryv1alpha1.ProcessorEpoch:
		return "ProcessorEpoch"
	case *doryv1alpha1.EdgeNode:
		return "EdgeNode"
	}
	return ""
}

// Kinds are an object of each kind that is read here.
func Kinds() []client.Object {
	return []client.Object{&doryv1alpha1.Processor{}, &doryv1alpha1.ProcessorMigration{}, &doryv1alpha1.ProcessorEpoch{}, &doryv1alpha1.EdgeNode{}}
}

// empty makes an object of a kind; nil for a kind that is not ours.
func empty(kind schema.GroupVersionKind) client.Object {
	if kind.GroupVersion() != doryv1alpha1.GroupVersion {
		return nil
	}
	for _, o := range Kinds() {
		if KindOf(o) == kind.Kind {
			return o
		}
	}
	return nil
}

// Unended answers an Error for the first of a Processor's migrations that cannot be decoded and may be under way. One that
// has ended is history, whatever else is in it.
func Unended(migrations []*doryv1alpha1.ProcessorMigration) error {
	for _, m := range migrations {
		if _, yes := Of(m); yes && !m.Ended() {
			return check(m)
		}
	}
	return nil
}
