package statestore

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/statexfer"
)

func version(epoch, sequence int64, at time.Time) Version {
	return Version{Position: statexfer.Position{Epoch: epoch, Sequence: sequence}, Time: at}
}

func TestVersionsAreOrdered(t *testing.T) {
	ascending := []Version{
		{},
		version(0, 0, noon),
		version(0, 7, noon.Add(-time.Hour)),
		version(1, 0, noon),
		version(1, 0, noon.Add(time.Second)),
		version(1, 5, noon.Add(-time.Hour)),
		version(2, 0, noon.Add(-2*time.Hour)),
	}
	for i, a := range ascending {
		for j, b := range ascending {
			if got := a.Compare(b); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("%s compared with %s is %d", a, b, got)
			}
		}
	}
	blind := Version{Position: statexfer.Position{Epoch: 1}, Time: noon, uncounted: true}
	if blind.Compare(version(1, 5, noon.Add(-time.Second))) < 0 || blind.Compare(version(1, 5, noon.Add(time.Second))) > 0 || blind.Compare(version(2, 0, time.Time{})) > 0 {
		t.Error("a save that tells no sequence must be ordered by its time within the epoch")
	}
	if version(1, 1, noon).Compare(version(1, 1, noon.Add(500*time.Microsecond))) != 0 {
		t.Error("less than the grain of the clock makes a difference")
	}
}

func TestVersionsSayWhatTheyAre(t *testing.T) {
	for want, v := range map[string]Version{
		"epoch 2 sequence 7 of 2026-11-21T12:00:00Z": version(2, 7, noon),
		"epoch 2 of 2026-11-21T12:00:00Z":            version(2, 0, noon),
	} {
		if got := v.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestRecorded(t *testing.T) {
	p := &doryv1alpha1.Processor{}
	if _, ok := Recorded(p); ok {
		t.Error("nothing is recorded")
	}
	p.Status.Checkpoint = &doryv1alpha1.ProcessorCheckpoint{Epoch: 3, Sequence: new(int64(9)), Time: metav1.NewTime(noon)}
	if got, ok := Recorded(p); !ok || got != version(3, 9, noon) {
		t.Errorf("%v", got)
	}
}

func TestLineageKnowsTheEpochsOfPods(t *testing.T) {
	held := Lineage{Epoch: 5, Holder: "five", Instance: "four", InstanceEpoch: 4}
	free := Lineage{Epoch: 5}
	others := map[string]int64{"three": 3, "": 8}
	for name, test := range map[string]struct {
		lineage Lineage
		pod     string
		want    int64
	}{
		"the holder":                        {held, "five", 5},
		"the last one in the status":        {held, "four", 4},
		"one that another document names":   {held, "three", 3},
		"a stranger while there is one":     {held, "stranger", 0},
		"nobody while there is one":         {held, "", 0},
		"a stranger while there is none":    {free, "stranger", 5},
		"nobody while there is none":        {free, "", 5},
		"a known one while there is none":   {free, "three", 3},
		"nothing is known of the processor": {Lineage{}, "any", 0},
	} {
		if got := test.lineage.epochOf(test.pod, others); got != test.want {
			t.Errorf("%s: epoch %d, want %d", name, got, test.want)
		}
	}
}

func TestLineageOf(t *testing.T) {
	p := &doryv1alpha1.Processor{}
	p.Status.Instance = &doryv1alpha1.ProcessorInstance{Pod: "a", Epoch: 3}
	epoch := &doryv1alpha1.ProcessorEpoch{Spec: doryv1alpha1.ProcessorEpochSpec{Epoch: 4, Holder: "b"}}
	if got := LineageOf(p, epoch); got != (Lineage{Epoch: 4, Holder: "b", Instance: "a", InstanceEpoch: 3}) {
		t.Errorf("%+v", got)
	}
	if got := LineageOf(&doryv1alpha1.Processor{}, nil); got != (Lineage{}) {
		t.Errorf("%+v", got)
	}
}

// TestSealIsTheDocuments: what is read off the text is what computing it would give, whatever is in the document.
func TestSealIsTheDocuments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payload, err := json.Marshal(rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "payload"))
		if err != nil {
			t.Fatal(err)
		}
		d := statexfer.Document{Payload: payload, Metadata: statexfer.Metadata{
			ProcessorID: rapid.String().Draw(t, "id") + `", "metadata": {`, PodName: rapid.String().Draw(t, "pod") + `, "checksum": "`, Time: noon,
		}}
		text, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		canonical, err := statexfer.Canonical(payload)
		if err != nil {
			t.Fatal(err)
		}
		checksum, size, err := sealOf(text)
		if err != nil || checksum != statexfer.Checksum(canonical) || size != int64(len(canonical)) {
			t.Fatalf("%s, %d, %v, want %s, %d", checksum, size, err, statexfer.Checksum(canonical), len(canonical))
		}
	})
}

func TestSealOfSomethingElse(t *testing.T) {
	for _, text := range []string{"", "{}", `{"payload": {}, "metadata": {}, "checksum": "x"`, `, "metadata": , "checksum": ""}`} {
		if checksum, _, err := sealOf([]byte(text)); err == nil {
			t.Errorf("%q: %q", text, checksum)
		}
	}
}

func TestPackAndUnpack(t *testing.T) {
	p := newPacker()
	d := statexfer.Document{Payload: []byte(`{"a": "` + strings.Repeat("x", 1<<20) + `"}`), Metadata: statexfer.Metadata{ProcessorID: "p", Time: noon}}
	text, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	packed, err := p.pack(text)
	if err != nil || len(packed) > len(text)/10 {
		t.Fatalf("%d bytes of %d, %v", len(packed), len(text), err)
	}
	back, err := p.unpack(packed)
	if err != nil || string(back.Payload) != string(d.Payload) || back.Metadata.ProcessorID != "p" {
		t.Errorf("%v", err)
	}
	tampered, err := p.pack([]byte(strings.Replace(string(text), "xxx", "yyy", 1)))
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"truncated": packed[:len(packed)/2], "empty": {}, "noise": []byte("noise"), "tampered": tampered} {
		if _, err := p.unpack(bad); !unreadable(err) || away(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
