package undecodable

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// serializer reads lists and events of our kinds although one object in them cannot be decoded.
type serializer struct{ runtime.NegotiatedSerializer }

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (s serializer) DecoderToVersion(d runtime.Decoder, version runtime.GroupVersioner) runtime.Decoder {
	return decoder{s.NegotiatedSerializer.DecoderToVersion(d, version)}
}

// decoder decodes the whole in one go, and object by object only after that failed.
type decoder struct{ whole runtime.Decoder }

// Decode implements runtime.Decoder.
func (d decoder) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	data = defuse(data)
	object, kind, err := d.whole.Decode(data, defaults, into)
	if err == nil {
		return object, kind, nil
	}
	object, kind, again := apart(data, into)
	if again != nil {
		return object, kind, fmt.Errorf("%w; and apart: %w", err, again)
	}
	return object, kind, nil
}

// apart decodes an object, or a list object by object. What is neither is an error.
func apart(data []byte, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	var list struct {
		Metadata metav1.ListMeta   `json:"metadata"`
		Items    []json.RawMessage `json:"items"`
	}
	var head metav1.TypeMeta
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, nil, fmt.Errorf("reading a kind: %w", err)
	}
	kind := head.GroupVersionKind()
	if object := empty(kind); object != nil {
		if given, ok := into.(client.Object); ok {
			object = given
		}
		zero(object)
		return object, &kind, read(data, object)
	}
	one := kind
	one.Kind = strings.TrimSuffix(kind.Kind, "List")
	items, ok := into.(client.ObjectList)
	if !ok || one == kind || empty(one) == nil {
		return nil, &kind, fmt.Errorf("%s is no kind of ours", kind)
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, &kind, fmt.Errorf("reading a list of %s: %w", one.Kind, err)
	}
	objects := make([]runtime.Object, len(list.Items))
	for i, raw := range list.Items {
		object := empty(one)
		object.GetObjectKind().SetGroupVersionKind(one)
		if err := read(raw, object); err != nil {
			return nil, &kind, fmt.Errorf("item %d of a list of %s: %w", i, one.Kind, err)
		}
		objects[i] = object
	}
	return items, &kind, fill(items, kind, list.Metadata, objects)
}

func fill(list client.ObjectList, kind schema.GroupVersionKind, metadata metav1.ListMeta, objects []runtime.Object) error {
	zero(list)
	list.GetObjectKind().SetGroupVersionKind(kind)
	list.SetResourceVersion(metadata.ResourceVersion)
	list.SetContinue(metadata.Continue)
	list.SetRemainingItemCount(metadata.RemainingItemCount)
	if err := meta.SetList(list, objects); err != nil {
		return fmt.Errorf("filling a list: %w", err)
	}
	return nil
}

// zero empties what a decoder may have half filled.
func zero(pointer any) { reflect.ValueOf(pointer).Elem().SetZero() }
