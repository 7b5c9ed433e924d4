package undecodable

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// Tolerate is an option of List for callers that look at every item with Of.
var Tolerate client.ListOption = tolerate{}

type tolerate struct{}

// ApplyToList implements client.ListOption.
func (tolerate) ApplyToList(*client.ListOptions) {}

// NewClient makes a client as client.New does, which answers as the package says. It is for a manager's options.
func NewClient(config *rest.Config, options client.Options) (client.Client, error) {
	c, err := client.New(config, options)
	if err != nil {
		return nil, fmt.Errorf("making a client: %w", err)
	}
	return Client(c), nil
}

// Client answers from and writes to another as the package says.
func Client(c client.Client) client.Client { return guard{c, Reader(c)} }

// guard keeps what is marked from being written.
type guard struct {
	client.Client
	reader client.Reader
}

func (g guard) Get(ctx context.Context, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	return g.reader.Get(ctx, key, o, options...)
}

func (g guard) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	return g.reader.List(ctx, list, options...)
}

func (g guard) Update(ctx context.Context, o client.Object, options ...client.UpdateOption) error {
	if err := check(o); err != nil {
		return err
	}
	return g.Client.Update(ctx, o, options...)
}

func (g guard) Patch(ctx context.Context, o client.Object, patch client.Patch, options ...client.PatchOption) error {
	if err := check(o); err != nil {
		return err
	}
	return g.Client.Patch(ctx, o, patch, options...)
}

func (g guard) Delete(ctx context.Context, o client.Object, options ...client.DeleteOption) error {
	if err := check(o); err != nil {
		return err
	}
	return g.Client.Delete(ctx, o, options...)
}

func (g guard) Status() client.SubResourceWriter { return statusGuard{g.Client.Status()} }

type statusGuard struct{ client.SubResourceWriter }

func (g statusGuard) Update(ctx context.Context, o client.Object, options ...client.SubResourceUpdateOption) error {
	if err := check(o); err != nil {
		return err
	}
	return g.SubResourceWriter.Update(ctx, o, options...)
}

func (g statusGuard) Patch(ctx context.Context, o client.Object, patch client.Patch, options ...client.SubResourcePatchOption) error {
	if err := check(o); err != nil {
		return err
	}
	return g.SubResourceWriter.Patch(ctx, o, patch, options...)
}

// Reader answers from another reader as the package says. That may be a cache which Informers fill, or go past it.
func Reader(r client.Reader) client.Reader { return reader{r} }

type reader struct{ client.Reader }

func (r reader) Get(ctx context.Context, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
	err := r.Reader.Get(ctx, key, o, options...)
	kind := KindOf(o)
	switch {
	case kind == "":
		return err
	case err == nil:
		return check(o)
	case !mayBeUndecodable(ctx, err):
		return err
	}
	raw := &unstructured.Unstructured{}
	raw.SetGroupVersionKind(doryv1alpha1.GroupVersion.WithKind(kind))
	if again := r.Reader.Get(ctx, key, raw, options...); again != nil {
		return errors.Join(err, again)
	}
	if again := readAgain(raw, o); again != nil {
		return errors.Join(err, again)
	}
	return check(o)
}

// mayBeUndecodable leaves out what the API server says itself.
func mayBeUndecodable(ctx context.Context, err error) bool {
	return ctx.Err() == nil && apierrors.ReasonForError(err) == "" && !errors.As(err, new(apierrors.APIStatus))
}

func readAgain(from *unstructured.Unstructured, into client.Object) error {
	raw, err := from.MarshalJSON()
	if err != nil {
		return fmt.Errorf("encoding an object that cannot be decoded: %w", err)
	}
	zero(into)
	return read(raw, into)
}

func (r reader) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	err := r.Reader.List(ctx, list, options...)
	kind := kindOfList(list)
	switch {
	case kind == "":
		return err
	case err == nil:
	case !mayBeUndecodable(ctx, err):
		return err
	default:
		if again := r.listAgain(ctx, kind, list, options...); again != nil {
			return errors.Join(err, again)
		}
	}
	for _, option := range options {
		if _, ok := option.(tolerate); ok {
			return nil
		}
	}
	return checkAll(list)
}

func (r reader) listAgain(ctx context.Context, kind string, list client.ObjectList, options ...client.ListOption) error {
	raw := &unstructured.UnstructuredList{}
	raw.SetGroupVersionKind(doryv1alpha1.GroupVersion.WithKind(kind + "List"))
	if err := r.Reader.List(ctx, raw, options...); err != nil {
		return err
	}
	objects := make([]runtime.Object, len(raw.Items))
	for i := range raw.Items {
		object := empty(doryv1alpha1.GroupVersion.WithKind(kind))
		if err := readAgain(&raw.Items[i], object); err != nil {
			return err
		}
		objects[i] = object
	}
	metadata := metav1.ListMeta{ResourceVersion: raw.GetResourceVersion(), Continue: raw.GetContinue(), RemainingItemCount: raw.GetRemainingItemCount()}
	return fill(list, doryv1alpha1.GroupVersion.WithKind(kind+"List"), metadata, objects)
}

func kindOfList(list client.ObjectList) string {
	switch list.(type) {
	case *doryv1alpha1.ProcessorList:
		return "Processor"
	case *doryv1alpha1.ProcessorMigrationList:
		return "ProcessorMigration"
	case *doryv1alpha1.ProcessorEpochList:
		return "ProcessorEpoch"
	case *doryv1alpha1.EdgeNodeList:
		return "EdgeNode"
	}
	return ""
}

// checkAll finds the first that is marked.
func checkAll(list client.ObjectList) error {
	switch list := list.(type) {
	case *doryv1alpha1.ProcessorList:
		return checkEach(list.Items)
	case *doryv1alpha1.ProcessorMigrationList:
		return checkEach(list.Items)
	case *doryv1alpha1.ProcessorEpochList:
		return checkEach(list.Items)
	case *doryv1alpha1.EdgeNodeList:
		return checkEach(list.Items)
	}
	return nil
}

func checkEach[T any, P interface {
	*T
	client.Object
}](items []T) error {
	for i := range items {
		if err := check(P(&items[i])); err != nil {
			return err
		}
	}
	return nil
}
