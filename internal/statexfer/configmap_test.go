package statexfer

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestConfigMapGolden(t *testing.T) {
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "dory-state-p-1", Labels: map[string]string{"mine": "1"}},
		Data:       map[string]string{"other": "2"},
	}
	if err := IntoConfigMap(cm, sample(), 0); err != nil {
		t.Fatal(err)
	}
	want := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name:        "dory-state-p-1",
			Labels:      map[string]string{"mine": "1", "dory.io/state-owner": "true"},
			Annotations: map[string]string{"dory.io/state-ttl": "3600", "dory.io/created-timestamp": "1772368215"},
		},
		Data: map[string]string{"other": "2", "state": sampleText},
	}
	if diff := cmp.Diff(want, cm); diff != "" {
		t.Error(diff)
	}
	d, err := FromConfigMap(cm)
	if err != nil || d.Metadata.Position != (Position{Epoch: 7, Sequence: 42}) {
		t.Errorf("read back %v, %v", d, err)
	}
}

func TestConfigMapTTL(t *testing.T) {
	var cm corev1.ConfigMap
	if err := IntoConfigMap(&cm, sample(), 90*time.Second); err != nil {
		t.Fatal(err)
	}
	if got := cm.Annotations[AnnotationTTL]; got != "90" {
		t.Errorf("TTL %q, want 90", got)
	}
}

func TestConfigMapOverOneMebibyteIsRefusedUnchanged(t *testing.T) {
	overhead := len(sampleText) - len(`{"counter": 0, "sessions": {}}`)
	fits := MaxConfigMapBytes - overhead - len(`{"a": ""}`)
	for name, test := range map[string]struct {
		size  int
		other corev1.ConfigMap
		fails bool
	}{
		"just fits":           {size: fits},
		"one byte over":       {size: fits + 1, fails: true},
		"with other data":     {size: fits, other: corev1.ConfigMap{Data: map[string]string{"x": "1"}}, fails: true},
		"with binary data":    {size: fits, other: corev1.ConfigMap{BinaryData: map[string][]byte{"x": {1}}}, fails: true},
		"replaces the state":  {size: fits, other: corev1.ConfigMap{Data: map[string]string{"state": "old"}}},
		"far over its limits": {size: MaxStateBytes, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			d := sample()
			d.Payload = json.RawMessage(`{"a":"` + strings.Repeat("x", test.size) + `"}`)
			before := test.other.DeepCopy()
			err := IntoConfigMap(&test.other, d, 0)
			if (err != nil) != test.fails {
				t.Fatalf("got error %v", err)
			}
			if !test.fails {
				return
			}
			if !errors.Is(err, ErrTooLarge) || !cmp.Equal(before, &test.other) {
				t.Errorf("error %v, ConfigMap changed: %v", err, !cmp.Equal(before, &test.other))
			}
		})
	}
}

func TestFromConfigMapNamesWhatIsWrong(t *testing.T) {
	for name, test := range map[string]struct {
		data map[string]string
		want error
	}{
		"no key":      {nil, ErrMalformed},
		"empty value": {map[string]string{"state": ""}, ErrMalformed},
		"damaged":     {map[string]string{"state": strings.Replace(sampleText, `"counter": 0`, `"counter": 1`, 1)}, ErrChecksum},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := FromConfigMap(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "dory-state-x"}, Data: test.data})
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), "dory-state-x") {
				t.Errorf("got %v, want %v that names the ConfigMap", err, test.want)
			}
		})
	}
}

func TestApplicationStateGolden(t *testing.T) {
	text, err := json.Marshal(ApplicationState{
		PodName: "pod", AppName: "app", CapturedAt: FormatTime(written), StateVersion: StateVersion, Data: json.RawMessage(`{"a":1}`),
		Metrics: map[string]json.RawMessage{}, Connections: []json.RawMessage{}, SessionData: map[string]json.RawMessage{},
		UptimeSeconds: 1.5, RequestCount: 3,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"pod_name":"pod","app_name":"app","captured_at":"2026-03-01T12:30:15.123456Z","state_version":"1.0","data":{"a":1},` +
		`"metrics":{},"connections":[],"active_sessions":0,"session_data":{},"uptime_seconds":1.5,"request_count":3,"last_health_time":null}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Error(diff)
	}
}
