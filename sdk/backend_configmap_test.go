package sdk

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/dory-io/dory/internal/statexfer"
)

// The verbs of the shipped ClusterRole dory-processor.
var processorVerbs = []string{"get", "create", "update", "patch"}

const stateName = "dory-state-p-1"

func newConfigMapBackend(t *testing.T, config *rest.Config, namespace string) *configMapBackend {
	t.Helper()
	b, err := ConfigMapBackend(config, namespace, stateName)
	if err != nil {
		t.Fatal(err)
	}
	return b.(*configMapBackend)
}

func stateConfigMap(t *testing.T, namespace string) *corev1.ConfigMap {
	t.Helper()
	cm, err := apiServer.client.CoreV1().ConfigMaps(namespace).Get(t.Context(), stateName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return cm
}

func updateConfigMap(t *testing.T, cm *corev1.ConfigMap) {
	t.Helper()
	if _, err := apiServer.client.CoreV1().ConfigMaps(cm.Namespace).Update(t.Context(), cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestConfigMapBackend(t *testing.T) {
	namespace, user := newNamespace(t, processorVerbs...)
	b := newConfigMapBackend(t, user, namespace)
	if _, err := b.Load(t.Context()); !errors.Is(err, ErrNoState) {
		t.Fatalf("before the first save: %v", err)
	}
	doc := document(`{"b":1.50,"a":"é"}`, 7, 42)
	doc.Metadata.Time = time.Unix(1772368215, 0)
	if err := b.Save(t.Context(), *doc); err != nil {
		t.Fatal(err)
	}
	cm := stateConfigMap(t, namespace)
	want := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name: stateName, Namespace: namespace,
			Labels:      map[string]string{"dory.io/state-owner": "true"},
			Annotations: map[string]string{"dory.io/state-ttl": "3600", "dory.io/created-timestamp": "1772368215"},
		},
		Data: map[string]string{"state": `{"payload": {"a": "\u00e9", "b": 1.5}, "metadata": {"timestamp":1772368215,` +
			`"timestamp_iso":"2026-03-01T12:30:15.000000Z","processor_id":"p-1","pod_name":"earlier-pod","restart_count":0,"epoch":7,"sequence":42}, ` +
			`"checksum": "` + statexfer.Checksum([]byte(`{"a": "\u00e9", "b": 1.5}`)) + `"}`},
	}
	ignore := cmpopts.IgnoreFields(metav1.ObjectMeta{}, "UID", "ResourceVersion", "CreationTimestamp", "ManagedFields")
	if diff := cmp.Diff(want, cm, ignore); diff != "" {
		t.Error(diff)
	}
	got, err := b.Load(t.Context())
	if err != nil || got.Metadata.Position != (Position{Epoch: 7, Sequence: 42}) {
		t.Errorf("Load: %v, %v", got, err)
	}
}

func TestConfigMapKeepsWhatOthersPutThere(t *testing.T) {
	namespace, user := newNamespace(t, processorVerbs...)
	b := newConfigMapBackend(t, user, namespace)
	if err := b.Save(t.Context(), *document(`{}`, 1, 1)); err != nil {
		t.Fatal(err)
	}
	cm := stateConfigMap(t, namespace)
	cm.Labels["team"], cm.Data["note"] = "a", "b"
	updateConfigMap(t, cm)
	if err := b.Save(t.Context(), *document(`{}`, 1, 2)); err != nil {
		t.Fatal(err)
	}
	if cm = stateConfigMap(t, namespace); cm.Labels["team"] != "a" || cm.Data["note"] != "b" {
		t.Errorf("labels %v, data %v", cm.Labels, cm.Data)
	}
}

func TestTrap7ConfigMapOfANewerInstanceStays(t *testing.T) {
	namespace, user := newNamespace(t, processorVerbs...)
	b := newConfigMapBackend(t, user, namespace)
	if err := b.Save(t.Context(), *document(`{"n":1}`, 7, 100)); err != nil {
		t.Fatal(err)
	}
	before := stateConfigMap(t, namespace)
	for _, older := range []*Document{document(`{}`, 6, 1000), document(`{}`, 7, 99), document(`{}`, 0, 0)} {
		err := b.Save(t.Context(), *older)
		if !errors.Is(err, ErrSuperseded) || !strings.Contains(err.Error(), "epoch 7 sequence 100") {
			t.Errorf("%v: %v", older.Metadata.Position, err)
		}
	}
	// Damage hides the payload, but not whose it is.
	before.Data["state"] = strings.Replace(before.Data["state"], `"n": 1`, `"n": 2`, 1)
	updateConfigMap(t, before)
	if err := b.Save(t.Context(), *document(`{}`, 6, 1000)); !errors.Is(err, ErrSuperseded) {
		t.Errorf("over a damaged, newer document: %v", err)
	}
	if err := b.Save(t.Context(), *document(`{"n":3}`, 8, 0)); err != nil {
		t.Errorf("a newer epoch: %v", err)
	}
}

// A write of somebody else falls between our read and our write, on every way that there is.
func TestConfigMapConflictsAreReadAgain(t *testing.T) {
	for name, test := range map[string]struct {
		existing, intruder *Document
		want               error
	}{
		"created meanwhile, older":    {nil, document(`{"by":1}`, 6, 1), nil},
		"created meanwhile, newer":    {nil, document(`{"by":1}`, 8, 1), ErrSuperseded},
		"updated meanwhile, older":    {document(`{}`, 5, 1), document(`{"by":1}`, 6, 1), nil},
		"updated meanwhile, newer":    {document(`{}`, 5, 1), document(`{"by":1}`, 7, 51), ErrSuperseded},
		"updated meanwhile, the same": {document(`{}`, 5, 1), document(`{"by":1}`, 7, 50), nil},
	} {
		t.Run(name, func(t *testing.T) {
			namespace, user := newNamespace(t, processorVerbs...)
			other := newConfigMapBackend(t, apiServer.admin, namespace)
			if test.existing != nil {
				if err := other.Save(t.Context(), *test.existing); err != nil {
					t.Fatal(err)
				}
			}
			intrude := sync.OnceFunc(func() {
				if err := other.Save(t.Context(), *test.intruder); err != nil {
					t.Error(err)
				}
			})
			b := newConfigMapBackend(t, beforeWrites(user, intrude), namespace)
			if err := b.Save(t.Context(), *document(`{"by":0}`, 7, 50)); !errors.Is(err, test.want) {
				t.Errorf("Save: %v, want %v", err, test.want)
			}
			want := `{"by": 0}`
			if test.want != nil {
				want = `{"by": 1}`
			}
			if got, err := b.Load(t.Context()); err != nil || string(got.Payload) != want {
				t.Errorf("saved %s, %v; want %s", got.Payload, err, want)
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// beforeWrites calls do before each request that changes something.
func beforeWrites(config *rest.Config, do func()) *rest.Config {
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.Method != http.MethodGet {
				do()
			}
			return next.RoundTrip(r)
		})
	})
	return config
}

func TestConfigMapEndlessConflict(t *testing.T) {
	namespace, user := newNamespace(t, processorVerbs...)
	other := newConfigMapBackend(t, apiServer.admin, namespace)
	writes := int64(0)
	b := newConfigMapBackend(t, beforeWrites(user, func() {
		writes++
		if err := other.Save(t.Context(), *document(`{}`, 1, writes)); err != nil {
			t.Error(err)
		}
	}), namespace)
	if err := b.Save(t.Context(), *document(`{}`, 7, 1)); err == nil || writes != writeAttempts {
		t.Errorf("Save: %v after %d writes", err, writes)
	}
}

func TestConfigMapInANamespaceThatEnds(t *testing.T) {
	namespace, user := newNamespace(t, processorVerbs...)
	if err := apiServer.client.CoreV1().Namespaces().Delete(t.Context(), namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	err := newConfigMapBackend(t, user, namespace).Save(t.Context(), *document(`{}`, 1, 1))
	if !permanent(err) || strings.Contains(err.Error(), "dory-processor") {
		t.Errorf("Save: %v, want an error that is not tried again and blames no permission", err)
	}
}

func TestTrap5ConfigMapOverOneMebibyte(t *testing.T) {
	namespace, user := newNamespace(t, processorVerbs...)
	writes := 0
	b := newConfigMapBackend(t, beforeWrites(user, func() { writes++ }), namespace)
	err := b.Save(t.Context(), *document(`{"a":"`+strings.Repeat("x", 1<<20)+`"}`, 1, 1))
	if !errors.Is(err, statexfer.ErrTooLarge) || !strings.Contains(err.Error(), "the limit of the API server is 1048576") || writes > 0 {
		t.Errorf("Save: %v, %d writes", err, writes)
	}
	room := statexfer.MaxConfigMapBytes - 400
	if err := b.Save(t.Context(), *document(`{"a":"`+strings.Repeat("x", room)+`"}`, 1, 1)); err != nil {
		t.Errorf("just under 1 MiB: %v", err)
	}
}

func TestTrap6ConfigMapThatCannotBeRead(t *testing.T) {
	for name, test := range map[string]struct {
		verbs  []string
		damage func(*corev1.ConfigMap)
		says   string
	}{
		"bad checksum": {processorVerbs, func(cm *corev1.ConfigMap) {
			cm.Data["state"] = strings.Replace(cm.Data["state"], `"n": 5`, `"n": 4`, 1)
		}, "checksum of the state document does not match: the document says "},
		"no state":      {processorVerbs, func(cm *corev1.ConfigMap) { delete(cm.Data, "state") }, `no data key "state"`},
		"no permission": {nil, nil, "is not allowed: bind the ClusterRole dory-processor"},
	} {
		t.Run(name, func(t *testing.T) {
			namespace, user := newNamespace(t, test.verbs...)
			if err := newConfigMapBackend(t, apiServer.admin, namespace).Save(t.Context(), *document(`{"n":5}`, 6, 5)); err != nil {
				t.Fatal(err)
			}
			if test.damage != nil {
				cm := stateConfigMap(t, namespace)
				test.damage(cm)
				updateConfigMap(t, cm)
			}
			p := newProcessor(t, newConfigMapBackend(t, user, namespace), WithRestoreTimeout(time.Nanosecond))
			Var(p, "n", 0)
			err := p.Run(t.Context(), mustNotIterate(t, p))
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("Run: %v, want an error that says %s", err, test.says)
			}
		})
	}
}

func mustNotIterate(t *testing.T, p *Processor) func(context.Context) error {
	t.Helper()
	return func(context.Context) error {
		t.Error("iterates with an empty state")
		p.stop("the test failed")
		return nil
	}
}

func TestTrap6APIServerThatIsNotThere(t *testing.T) {
	refusing := freePort(t, "127.0.0.1")
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "etcd is away", http.StatusInternalServerError)
	}))
	defer broken.Close()
	proxy := httptest.NewServer(http.NotFoundHandler())
	defer proxy.Close()
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"details":{"name":"else","kind":"configmaps"}}`))
	}))
	defer other.Close()
	for name, host := range map[string]string{
		"refuses connections": fmt.Sprint("http://127.0.0.1:", refusing), "answers 500": broken.URL, "is a proxy that knows no path": proxy.URL, "speaks of something else": other.URL,
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, newConfigMapBackend(t, &rest.Config{Host: host}, "ns"), WithRestoreTimeout(time.Nanosecond))
			Var(p, "n", 0)
			err := p.Run(t.Context(), mustNotIterate(t, p))
			if err == nil || !strings.Contains(err.Error(), "reading ConfigMap ns/dory-state-p-1") {
				t.Errorf("Run: %v", err)
			}
		})
	}
}

// A life in a cluster: three instances after one another, with rising epochs, and one late ghost.
func TestStateGoesFromInstanceToInstance(t *testing.T) {
	namespace, user := newNamespace(t, processorVerbs...)
	instance := func(epoch string) (*Processor, *Variable[int]) {
		p := newProcessor(t, newConfigMapBackend(t, user, namespace), environ("DORY_EPOCH", epoch))
		return p, Var(p, "n", 0)
	}
	run := func(p *Processor, n *Variable[int], iterations int) error {
		return p.Run(t.Context(), func(context.Context) error {
			if iterations--; iterations <= 0 {
				p.stop("enough")
			}
			n.Set(n.Get() + 1)
			return nil
		})
	}
	ghost, ghostN := instance("1")
	for i, epoch := range []string{"2", "3", "4"} {
		p, n := instance(epoch)
		if err := run(p, n, 10); err != nil {
			t.Fatal(err)
		}
		if want := (i + 1) * 10; n.Get() != want || p.Sequence() != int64(want) {
			t.Errorf("after epoch %s: n %d, sequence %d, want %d", epoch, n.Get(), p.Sequence(), want)
		}
	}
	if err := run(ghost, ghostN, 1000); !errors.Is(err, ErrSuperseded) {
		t.Errorf("the ghost: %v", err)
	}
}
