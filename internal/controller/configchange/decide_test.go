package configchange

import (
	"crypto/hmac"
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/dory-io/dory/internal/pod"
)

func config(hash string) sight {
	return sight{Reference: pod.Reference{Kind: "ConfigMap", Name: "config"}, hash: hash}
}

func secret(hash string) sight {
	return sight{Reference: pod.Reference{Kind: "Secret", Name: "secret"}, hash: hash}
}

func optional(s sight) sight { s.Optional = true; return s }

func unwatched(s sight) sight { s.unwatched = true; return s }

func lacking(s sight, key string) sight { s.lacks = []string{key}; return s }

func TestDecide(t *testing.T) {
	for name, test := range map[string]struct {
		before, now []sight
		changed     []string
		// hashes are those of what is kept, in order.
		hashes  []string
		message string
	}{
		"the first look":                   {nil, []sight{config("1"), secret("1")}, nil, []string{"1", "1"}, ""},
		"nothing changed":                  {[]sight{config("1")}, []sight{config("1")}, nil, []string{"1"}, ""},
		"one changed":                      {[]sight{config("1"), secret("1")}, []sight{config("2"), secret("1")}, []string{"ConfigMap config"}, []string{"2", "1"}, ""},
		"both changed":                     {[]sight{config("1"), secret("1")}, []sight{config("2"), secret("2")}, []string{"ConfigMap config", "Secret secret"}, []string{"2", "2"}, ""},
		"one came with the spec":           {[]sight{config("1")}, []sight{config("1"), secret("1")}, nil, []string{"1", "1"}, ""},
		"one went with the spec":           {[]sight{config("1"), secret("1")}, []sight{config("1")}, nil, []string{"1"}, ""},
		"one that is needed is missing":    {nil, []sight{config("1"), secret("")}, nil, []string{"1"}, "Secret secret is missing"},
		"it appears":                       {[]sight{config("1"), secret("")}, []sight{config("1"), secret("1")}, nil, []string{"1", "1"}, ""},
		"an optional one is missing":       {nil, []sight{optional(config(""))}, nil, []string{""}, ""},
		"the optional one appears":         {[]sight{optional(config(""))}, []sight{optional(config("1"))}, []string{"ConfigMap config"}, []string{"1"}, ""},
		"the optional one goes":            {[]sight{optional(config("1"))}, []sight{optional(config(""))}, nil, []string{"1"}, ""},
		"one is deleted":                   {[]sight{config("1")}, []sight{config("")}, nil, []string{"1"}, "ConfigMap config is missing"},
		"one is deleted, another changes":  {[]sight{config("1"), secret("1")}, []sight{config(""), secret("2")}, nil, []string{"1", "1"}, "ConfigMap config is missing"},
		"one loses a key that is needed":   {[]sight{config("1")}, []sight{lacking(config("2"), "url")}, nil, []string{"1"}, `ConfigMap config has no key "url"`},
		"secrets may not be watched":       {nil, []sight{config("1"), unwatched(secret(""))}, nil, []string{"1"}, "bind ClusterRole dory-secret-watcher"},
		"a secret may not be read now":     {[]sight{config("1"), secret("1")}, []sight{config("2"), unwatched(secret(""))}, []string{"ConfigMap config"}, []string{"2", "1"}, "may not watch Secret secret"},
		"nothing is referred to":           {[]sight{config("1")}, nil, nil, nil, ""},
		"secrets may be watched from here": {[]sight{config("1"), unwatched(secret(""))}, []sight{config("1"), secret("1")}, nil, []string{"1", "1"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			last := decide(nil, test.before, len(test.before)).config
			got := decide(last, test.now, len(test.now))
			if diff := cmp.Diff(test.changed, got.changed); diff != "" {
				t.Errorf("changed (-want +got):\n%s", diff)
			}
			var hashes []string
			said, revision := "", ""
			if got.config != nil {
				said, revision = got.config.Message, got.config.Revision
				for _, o := range got.config.Objects {
					hashes = append(hashes, o.Hash)
				}
			}
			if diff := cmp.Diff(test.hashes, hashes); diff != "" {
				t.Errorf("kept (-want +got):\n%s", diff)
			}
			if !strings.Contains(said, test.message) || (test.message == "") != (said == "") {
				t.Errorf("message %q, want %q", said, test.message)
			}
			if (revision != "") != (len(test.changed) > 0) {
				t.Errorf("revision %q after %d changes", revision, len(test.changed))
			}
			if again := decide(got.config, test.now, len(test.now)); !cmp.Equal(again.config, got.config) || len(again.changed) > 0 {
				t.Errorf("a second look sees changes %q: %s", again.changed, cmp.Diff(got.config, again.config))
			}
		})
	}
}

// An object that is deleted and made anew with what it had is no change, and with something else it is.
func TestDecideOnAnObjectThatReturns(t *testing.T) {
	first := decide(nil, []sight{config("1")}, 1).config
	gone := decide(first, []sight{config("")}, 1).config
	if same := decide(gone, []sight{config("1")}, 1); len(same.changed) > 0 {
		t.Errorf("the same content counts as a change")
	}
	if other := decide(gone, []sight{config("2")}, 1); len(other.changed) != 1 {
		t.Errorf("another content does not count as a change")
	}
}

func TestDecideSaysThatThereAreTooMany(t *testing.T) {
	if got := decide(nil, []sight{config("1")}, 70).config.Message; !strings.Contains(got, "refers to 70 ConfigMaps and Secrets, of which the first 1 are watched") {
		t.Errorf("message %q", got)
	}
}

func TestDigestTellsContentsApart(t *testing.T) {
	seen := map[string]string{}
	for name, content := range map[string]map[string][]byte{
		"nothing":            {},
		"an empty key":       {"a": nil},
		"a value":            {"a": []byte("bc")},
		"a longer key":       {"ab": []byte("c")},
		"two keys":           {"a": []byte("b"), "c": nil},
		"one with all of it": {"a": []byte("bc\x00")},
	} {
		sum := digest(sha256.New(), content)
		if other, taken := seen[sum]; taken {
			t.Errorf("%s and %s have the same hash", name, other)
		}
		seen[sum] = name
	}
	content := map[string][]byte{"password": []byte("1234")}
	if digest(hmac.New(sha256.New, []byte("k")), content) == digest(sha256.New(), content) {
		t.Error("the hash of a Secret can be guessed")
	}
}

func TestSeveralChangesSettleIntoOne(t *testing.T) {
	clock := clocktesting.NewFakeClock(time.Now())
	u := &unsettled{clock: clock, settle: 2 * time.Second, since: map[types.NamespacedName]span{}}
	key := types.NamespacedName{Namespace: "n", Name: "p"}
	if u.left(key) != 0 {
		t.Fatal("nothing changed, and there is something to wait for")
	}
	u.begin(key)
	clock.Step(1500 * time.Millisecond)
	u.begin(key)
	if got := u.left(key); got != 2*time.Second {
		t.Errorf("left %s after the second change, want 2s", got)
	}
	clock.Step(2 * time.Second)
	if got := u.left(key); got != 0 {
		t.Errorf("left %s, want nothing", got)
	}
	for range 20 {
		u.begin(key)
		clock.Step(time.Second)
	}
	if got := u.left(key); got != 0 {
		t.Errorf("left %s: an object that changes all the time holds the restart up for ever", got)
	}
	u.begin(key)
	u.forget(key)
	if len(u.since) != 0 {
		t.Error("what is forgotten stays in memory")
	}
}
