package undecodable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	kserializer "k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

func TestReadKeepsWhatGoTakes(t *testing.T) {
	for name, test := range map[string]struct {
		into  client.Object
		json  string
		cause []string // Nothing: it is decoded.
		keeps func(client.Object) bool
	}{
		"all is well": {
			&doryv1alpha1.Processor{}, `{"metadata":{"name":"a"},"spec":{"state":{"checkpointInterval":"30s"}}}`, nil,
			func(o client.Object) bool { return o.(*doryv1alpha1.Processor).CheckpointInterval().Seconds() == 30 },
		},
		"a duration in days": {
			&doryv1alpha1.Processor{},
			`{"metadata":{"name":"a","namespace":"n","uid":"u","finalizers":["f"]},"spec":{"processorID":"Proc_6","image":"i","state":{"checkpointInterval":"1d","onMissing":"Require"}},"status":{"lastEpoch":7}}`,
			[]string{`spec.state.checkpointInterval: time: unknown unit "d" in duration "1d"`},
			func(o client.Object) bool {
				p := o.(*doryv1alpha1.Processor)
				return p.ID() == "Proc_6" && p.UID == "u" && p.Status.LastEpoch == 7 && p.OnMissing() == "Require" && p.Finalizers[0] == "f" && p.Spec.State.CheckpointInterval == nil
			},
		},
		"two faults, one in a list": {
			&doryv1alpha1.Processor{},
			`{"metadata":{"name":"a"},"spec":{"port":"http","env":[{"name":"A","value":"b"},{"name":"B","valueFrom":{"resourceFieldRef":{"divisor":"1e1.5"}}}]}}`,
			[]string{"spec.port: ", "spec.env[1].valueFrom.resourceFieldRef.divisor: "},
			func(o client.Object) bool {
				return len(o.(*doryv1alpha1.Processor).Spec.Env) == 2 && o.(*doryv1alpha1.Processor).Spec.Port == 0
			},
		},
		"quantities that Go computes on for hours": {
			&doryv1alpha1.Processor{},
			`{"metadata":{"name":"a","annotations":{"a":"1e-999999999"}},"spec":{"resources":{"requests":{"cpu":"1e-999999999","memory":"1Gi"}},"env":[{"name":"B","valueFrom":{"resourceFieldRef":{"divisor":"1e999999999"}}}]}}`,
			[]string{"spec.env[0].valueFrom.resourceFieldRef.divisor: the quantity is not parsed", "spec.resources.requests.cpu: the quantity is not parsed"},
			func(o client.Object) bool {
				return o.GetAnnotations()["a"] == "1e-999999999" && o.(*doryv1alpha1.Processor).Spec.Resources.Requests.Memory().String() == "1Gi"
			},
		},
		"an object where a text belongs": {
			&doryv1alpha1.Processor{}, `{"metadata":{"name":"a"},"spec":{"image":{"name":"i"},"suspend":true}}`,
			[]string{"spec.image: "},
			func(o client.Object) bool { return o.(*doryv1alpha1.Processor).Suspended() },
		},
		"a list where an object belongs": {
			&doryv1alpha1.Processor{}, `{"metadata":{"name":"a"},"spec":[{}]}`,
			[]string{"spec: "},
			func(o client.Object) bool { return o.GetName() == "a" },
		},
		"a number that is too large": {
			&doryv1alpha1.ProcessorEpoch{}, `{"metadata":{"name":"a"},"spec":{"epoch":99999999999999999999,"holder":"p"}}`,
			[]string{"spec.epoch: "},
			func(o client.Object) bool { return o.(*doryv1alpha1.ProcessorEpoch).Spec.Holder == "p" },
		},
		"the status of a move": {
			&doryv1alpha1.ProcessorMigration{}, `{"metadata":{"name":"a"},"spec":{"processor":"p"},"status":{"phase":"Succeeded","pause":"1d","startTime":"today"}}`,
			[]string{"status.pause: ", "status.startTime: "},
			func(o client.Object) bool {
				m := o.(*doryv1alpha1.ProcessorMigration)
				return m.Ended() && m.Spec.Processor == "p"
			},
		},
		"an edge node": {
			&doryv1alpha1.EdgeNode{}, `{"metadata":{"name":"a","annotations":{"x":"y"}},"spec":{"edgeNodeID":7,"nodeName":"n"}}`,
			[]string{"spec.edgeNodeID: "},
			func(o client.Object) bool {
				return o.(*doryv1alpha1.EdgeNode).KubernetesNode() == "n" && o.GetAnnotations()["x"] == "y"
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := read([]byte(test.json), test.into); err != nil {
				t.Fatal(err)
			}
			cause, yes := Of(test.into)
			if yes != (len(test.cause) > 0) {
				t.Errorf("marked: %t %q", yes, cause)
			}
			for _, want := range test.cause {
				if !strings.Contains(cause, want) {
					t.Errorf("the cause is %q, want it to say %q", cause, want)
				}
			}
			if !test.keeps(test.into) {
				t.Errorf("what is left: %+v", test.into)
			}
		})
	}
}

func TestReadGivesUpWithoutMetadata(t *testing.T) {
	for _, text := range []string{`{"metadata":{"name":7}}`, `{"metadata":[]}`, `[]`, `{`, `"text"`} {
		if err := read([]byte(text), &doryv1alpha1.Processor{}); err == nil {
			t.Errorf("%s is taken for an object", text)
		}
	}
}

// The mark must not reach the API server by any way.
func TestTheMarkIsNoAnnotationThatAnAPIServerTakes(t *testing.T) {
	if !strings.Contains(mark, " ") {
		t.Errorf("%q could be written by anybody", mark)
	}
}

func TestDecoder(t *testing.T) {
	d := testDecoder(t)
	object := func(name, interval string) string {
		return fmt.Sprintf(`{"apiVersion":"dory.io/v1alpha1","kind":"Processor","metadata":{"name":%q},"spec":{"state":{"checkpointInterval":%q}}}`, name, interval)
	}
	t.Run("a list", func(t *testing.T) {
		list := &doryv1alpha1.ProcessorList{}
		text := fmt.Sprintf(`{"apiVersion":"dory.io/v1alpha1","kind":"ProcessorList","metadata":{"resourceVersion":"7","continue":"c"},"items":[%s,%s,%s]}`,
			object("a", "1s"), object("b", "1d"), object("c", "2s"))
		decoded, _, err := d.Decode([]byte(text), nil, list)
		if err != nil || decoded != runtime.Object(list) {
			t.Fatal(decoded, err)
		}
		var names []string
		for i := range list.Items {
			cause, yes := Of(&list.Items[i])
			names = append(names, fmt.Sprintf("%s %t %t %s", list.Items[i].Name, yes, strings.Contains(cause, "1d"), list.Items[i].Kind))
		}
		if want := []string{"a false false Processor", "b true true Processor", "c false false Processor"}; !slices.Equal(names, want) {
			t.Errorf("%q, want %q", names, want)
		}
		if list.ResourceVersion != "7" || list.Continue != "c" || list.Kind != "ProcessorList" {
			t.Errorf("%+v", list.ListMeta)
		}
	})
	t.Run("an event", func(t *testing.T) {
		decoded, kind, err := d.Decode([]byte(object("b", "1d")), nil, nil)
		if err != nil || *kind != doryv1alpha1.GroupVersion.WithKind("Processor") {
			t.Fatal(kind, err)
		}
		if _, yes := Of(decoded.(client.Object)); !yes {
			t.Errorf("%+v", decoded)
		}
	})
	t.Run("a quantity that Go computes on for hours", func(t *testing.T) {
		object := `{"apiVersion":"dory.io/v1alpha1","kind":"Processor","metadata":{"name":"b"},"spec":{"resources":{"limits":{"cpu":"1e-999999999"}}}}`
		for _, text := range []string{object, `{"apiVersion":"dory.io/v1alpha1","kind":"ProcessorList","metadata":{},"items":[` + object + `]}`} {
			var into runtime.Object
			if text != object {
				into = &doryv1alpha1.ProcessorList{}
			}
			decoded, _, err := d.Decode([]byte(text), nil, into)
			if err != nil {
				t.Fatal(err)
			}
			if list, ok := decoded.(*doryv1alpha1.ProcessorList); ok {
				decoded = &list.Items[0]
			}
			if _, yes := Of(decoded.(client.Object)); !yes {
				t.Errorf("%+v", decoded)
			}
		}
	})
	t.Run("what is no object of ours", func(t *testing.T) {
		for _, text := range []string{`{"apiVersion":"v1","kind":"Pod","spec":[]}`, `{"apiVersion":"dory.io/v1alpha1","kind":"Other"}`, `<html>`} {
			if _, _, err := d.Decode([]byte(text), nil, nil); err == nil {
				t.Errorf("%s is decoded", text)
			}
		}
	})
}

// A client that reads past the caches decodes what it is answered, and a watch must not wait for its end.
func TestWrapTransport(t *testing.T) {
	bomb := `{"apiVersion":"dory.io/v1alpha1","kind":"Processor","metadata":{"name":"b"},"spec":{"resources":{"limits":{"cpu":"1e-999999999"}}}}`
	for target, want := range map[string]bool{
		"/apis/dory.io/v1alpha1/namespaces/n/processors/b": true, "/apis/dory.io/v1alpha1/processors?watch=false": true,
		"/apis/dory.io/v1alpha1/processors?watch=true": false, "/apis/dory.io/v1alpha1/processors?watch=1": false, "/api/v1/pods": false,
	} {
		server := WrapTransport(answers(bomb))
		response, err := server.RoundTrip(httptest.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		if err = errors.Join(err, response.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if defused := !strings.Contains(string(body), "1e-999999999"); defused != want {
			t.Errorf("%s: %s", target, body)
		}
	}
}

// answers is an API server with one answer.
type answers string

func (a answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(string(a)))}, nil
}

func testDecoder(tb testing.TB) runtime.Decoder {
	tb.Helper()
	scheme := runtime.NewScheme()
	if err := doryv1alpha1.AddToScheme(scheme); err != nil {
		tb.Fatal(err)
	}
	negotiated := serializer{kserializer.WithoutConversionCodecFactory{CodecFactory: kserializer.NewCodecFactory(scheme)}}
	info, _ := runtime.SerializerInfoForMediaType(negotiated.SupportedMediaTypes(), runtime.ContentTypeJSON)
	return negotiated.DecoderToVersion(info.Serializer, doryv1alpha1.GroupVersion)
}

func TestUnended(t *testing.T) {
	m := func(phase doryv1alpha1.MigrationPhase, aside bool) *doryv1alpha1.ProcessorMigration {
		m := &doryv1alpha1.ProcessorMigration{ObjectMeta: metav1.ObjectMeta{Name: "m"}, Status: doryv1alpha1.ProcessorMigrationStatus{Phase: phase}}
		if aside {
			Mark(m, "why")
		}
		return m
	}
	for _, test := range []struct {
		m    *doryv1alpha1.ProcessorMigration
		want bool
	}{
		{m("", false), false}, {m("Warming", false), false}, {m("Succeeded", true), false}, {m("Warming", true), true}, {m("", true), true},
	} {
		if _, got := As(Unended([]*doryv1alpha1.ProcessorMigration{test.m})); got != test.want {
			t.Errorf("%+v: %t", test.m, got)
		}
	}
}

// BenchmarkDecodeList shows what a list costs in which all can be decoded, and the same as client-go decodes it.
func BenchmarkDecodeList(b *testing.B) {
	list := doryv1alpha1.ProcessorList{TypeMeta: metav1.TypeMeta{APIVersion: "dory.io/v1alpha1", Kind: "ProcessorList"}}
	for i := range 10000 {
		list.Items = append(list.Items, doryv1alpha1.Processor{
			TypeMeta:   metav1.TypeMeta{APIVersion: "dory.io/v1alpha1", Kind: "Processor"},
			ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p-%d", i), Namespace: "n", UID: "0b1ed4c2-68a7-4d8f-9b0f-2f5b6d2e8a11"},
			Spec:       doryv1alpha1.ProcessorSpec{Image: "example/camera:1", Port: 8080, State: &doryv1alpha1.ProcessorState{CheckpointInterval: &metav1.Duration{Duration: 1e9}}},
		})
	}
	good, err := json.Marshal(list)
	if err != nil {
		b.Fatal(err)
	}
	bad := []byte(strings.Replace(string(good), `"1s"`, `"1d"`, 1))
	tolerant := testDecoder(b)
	for name, test := range map[string]struct {
		d interface {
			Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error)
		}
		text []byte
	}{"plain": {tolerant.(decoder).whole, good}, "tolerant": {tolerant, good}, "one aside": {tolerant, bad}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, _, err := test.d.Decode(test.text, nil, &doryv1alpha1.ProcessorList{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
