package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/quantity"
)

const (
	// decodeSeed makes the values of a run those of any other.
	decodeSeed = 16
	// decodeMutants is how many altered spellings each field is tried with.
	decodeMutants = 120
	// decodeAsked is how many requests are under way at once.
	decodeAsked = 8
)

// The API server checks a field by its schema and its rules, and the operator reads it with Go's decoder. What one takes
// and the other does not breaks the list of all objects of the kind. So every field of every CRD is given values that Go's
// decoder refuses, and the API server has to refuse them too, or to answer with something else that Go takes. The fields
// are found in the schema: one that is added is tried without a word here.
var _ = Describe("What the API server admits", func() {
	for _, kind := range []string{"Processor", "ProcessorMigration", "ProcessorEpoch", "EdgeNode"} {
		It("is what Go decodes, in a "+kind, func(ctx context.Context) {
			t := newTrial(kind)
			t.keep(ctx)
			for _, part := range parts(t.schema) {
				refusal, err := t.judge(ctx, part, t.whole)
				Expect(errors.Join(refusal, err)).To(Succeed(), "if the whole is refused, refusing a part of it proves nothing")
			}
			tried := t.undecodable()
			Expect(tried).NotTo(BeEmpty(), "no value that Go refuses was found")
			var mutex sync.Mutex
			var admitted []string
			workqueue.ParallelizeUntil(ctx, decodeAsked, len(tried), func(i int) {
				a := tried[i]
				refusal, err := t.judge(ctx, a.part, a.document)
				if err == nil && refusal != nil && apierrors.ReasonForError(refusal) == metav1.StatusReasonUnknown {
					err = refusal
				}
				if err != nil {
					mutex.Lock()
					defer mutex.Unlock()
					admitted = append(admitted, fmt.Sprintf("%s: %s: %v", a.field, a.value, err))
				}
			})
			slices.Sort(admitted)
			Expect(admitted).To(BeEmpty(), "of %d values, %d are admitted", len(tried), len(admitted))
		})
	}
})

// fitting are the values of fields for which the schema does not say what fits.
var fitting = map[string]any{
	"Processor.spec.location":    "Edge",
	"Processor.spec.image":       "example/camera:1",
	"Processor.spec.restartedAt": "2026-01-02T03:04:05Z",
}

// trial is the trial of one kind.
type trial struct {
	kind, resource, namespace string
	schema                    map[string]any
	whole                     any
	rest                      rest.Interface
	decoder                   runtime.Decoder
	decoded                   reflect.Type
	random                    *rand.Rand
}

func newTrial(kind string) *trial {
	GinkgoHelper()
	t := &trial{kind: kind, resource: strings.ToLower(kind) + "s", namespace: "namespaces/default/", random: rand.New(rand.NewPCG(decodeSeed, 0))}
	if kind == "EdgeNode" {
		t.namespace = ""
	}
	manifest, err := os.ReadFile(filepath.Join(configDir, "crd/bases/dory.io_"+t.resource+".yaml"))
	Expect(err).NotTo(HaveOccurred())
	crd := object(string(manifest))
	versions := crd.Object["spec"].(map[string]any)["versions"].([]any)
	t.schema = versions[0].(map[string]any)["schema"].(map[string]any)["openAPIV3Schema"].(map[string]any)["properties"].(map[string]any)
	document := map[string]any{"apiVersion": "dory.io/v1alpha1", "kind": kind, "metadata": map[string]any{"name": "whole"}}
	for _, part := range parts(t.schema) {
		document[part] = t.fill(t.schema[part].(map[string]any), kind+"."+part)
	}
	t.whole = document

	scheme := runtime.NewScheme()
	Expect(doryv1alpha1.AddToScheme(scheme)).To(Succeed())
	into, err := scheme.New(doryv1alpha1.GroupVersion.WithKind(kind))
	Expect(err).NotTo(HaveOccurred())
	t.decoded = reflect.TypeOf(into)
	t.decoder = serializer.NewCodecFactory(scheme).UniversalDeserializer()
	cfg := rest.CopyConfig(testEnv.Config)
	cfg.QPS = -1
	cfg.Impersonate = rest.ImpersonationConfig{UserName: operatorUser, Groups: []string{"system:masters"}}
	clients, err := kubernetes.NewForConfig(cfg)
	Expect(err).NotTo(HaveOccurred())
	t.rest = clients.Discovery().RESTClient()
	return t
}

// parts are those of an object that are ours.
func parts(schema map[string]any) []string {
	return slices.DeleteFunc([]string{"spec", "status"}, func(part string) bool { return schema[part] == nil })
}

// fill makes a value with every field of the schema set.
func (t *trial) fill(schema map[string]any, field string) any {
	if value, ok := fitting[field]; ok {
		return value
	}
	if enum, ok := schema["enum"].([]any); ok {
		return enum[0]
	}
	switch {
	case schema["x-kubernetes-int-or-string"] == true:
		return "1"
	case schema["properties"] != nil:
		filled := map[string]any{}
		for name, below := range schema["properties"].(map[string]any) {
			filled[name] = t.fill(below.(map[string]any), field+"."+name)
		}
		return filled
	case schema["additionalProperties"] != nil:
		return map[string]any{"abc": t.fill(schema["additionalProperties"].(map[string]any), field+".abc")}
	}
	switch schema["type"] {
	case "array":
		return []any{t.fill(schema["items"].(map[string]any), field+"[]")}
	case "boolean":
		return true
	case "integer":
		if minimum, ok := schema["minimum"]; ok {
			return minimum
		}
		return 1
	case "string":
		return text(schema)
	}
	return map[string]any{}
}

// text is a string of the schema's format and length.
func text(schema map[string]any) string {
	if schema["format"] == "date-time" {
		return "2026-01-02T03:04:05Z"
	}
	pattern, _ := schema["pattern"].(string)
	if strings.HasSuffix(pattern, "{12}$") {
		return "0b1ed4c2-68a7-4d8f-9b0f-2f5b6d2e8a11"
	}
	if value, ok := schema["default"].(string); ok {
		return value
	}
	if strings.Contains(pattern, "ns)?$") {
		return "30s"
	}
	value := "Abc"
	if length, ok := schema["minLength"].(int64); ok {
		value += strings.Repeat("a", max(0, int(length)-len(value)))
	}
	return value
}

// attempt is the whole object, with one value that Go does not take.
type attempt struct {
	part, field, value string
	document           any
}

// undecodable are the attempts at every field.
func (t *trial) undecodable() []attempt {
	var found []attempt
	visit := func(schema map[string]any, path []any) {
		seen := map[string]bool{}
		for _, raw := range t.values(schema) {
			if seen[raw] {
				continue
			}
			seen[raw] = true
			document := replaced(t.whole, path, json.RawMessage(raw))
			if t.decode(encode(document)) != nil {
				found = append(found, attempt{path[0].(string), fmt.Sprint(path), raw, document})
			}
		}
	}
	for _, part := range parts(t.schema) {
		walk(t.schema[part].(map[string]any), []any{part}, visit)
	}
	return found
}

// walk visits every node of a schema. A number in a path is an item of a list.
func walk(schema map[string]any, path []any, visit func(map[string]any, []any)) {
	visit(schema, path)
	below := func(schema, step any) {
		walk(schema.(map[string]any), append(slices.Clone(path), step), visit)
	}
	properties, _ := schema["properties"].(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		below(properties[name], name)
	}
	if values, ok := schema["additionalProperties"]; ok {
		below(values, "abc")
	}
	if items, ok := schema["items"]; ok {
		below(items, 0)
	}
}

// replaced is the document with another value at the path.
func replaced(document any, path []any, value any) any {
	if len(path) == 0 {
		return value
	}
	switch step := path[0].(type) {
	case string:
		changed := maps.Clone(document.(map[string]any))
		changed[step] = replaced(changed[step], path[1:], value)
		return changed
	default:
		return []any{replaced(document.([]any)[0], path[1:], value)}
	}
}

// otherTypes and numbers are JSON of every kind.
var (
	otherTypes = []string{`"abc"`, `""`, `1`, `1.5`, `true`, `[]`, `{}`, `[1]`, `["a"]`, `{"a":1}`, `[null]`, `null`}
	numbers    = []string{
		`0`, `-1`, `1.0`, `1e3`, `1E0`, `0.1e1`, `2147483648`, `-2147483649`, `9223372036854775807`, `9223372036854775808`, `-9223372036854775809`,
		`1e9`, `1e10`, `1e15`, `1e19`, `1e25`, `1e400`, `-1e19`, `1.5e1`, `12345678901234567890123`,
	}
)

// spellings are what people and programs write for durations, times and quantities.
var spellings = []string{
	"1d", "1w", "1y", "30 sec", "30 seconds", "1 min", "2 hours", "1 d", "1h 30m", " 5s", "5s ", "5S", "1H", "1m30", "+5s", "-5s", "1.5h", "60000ms", "0", "0s",
	"1µs", "1μs", "1us", "1e3s", ".5s", "5.s", "1h1h", "1s1h", "99999999h", "2562048h", "999999h999999h999999h999999h", "PT30S", "1_000s", "1hour", "30",
	"9223372036854775807ns", "9223372036854775808ns", "0.000000000000000000001s", "1m30s", "24h0m0.000000001s", "9999999999999999h", "5124095h34m33.709551616s",
	"2026-01-02T03:04:05Z", "2026-01-02t03:04:05Z", "2026-01-02T03:04:05z", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05", "2026-01-02T03:04:05,5Z",
	"2026-01-02T03:04:05x5Z", "2026-01-02T03:04:05.5Z", "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05+99:99", "2026-01-02T03:04:05+24:00",
	"2026-01-02T03:04:05+23:60", "2026-01-02T03:04:05+0100", "2026-01-02T03:04:05-00:00", "2026-02-30T03:04:05Z", "2026-01-02T24:00:00Z", "2026-01-02T23:59:60Z",
	"2026-01-02T03:60:05Z", "2026-01-02", "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "2026-1-2T3:4:5Z", "2026-01-02T03:04:05.1234567890123Z", "now",
	"1e1.5", "1e", "1E", "1Ki", "1ki", "1 Gi", "1,5", "1e999", "1e-999", "--1", ".", "1.", "1..5", "1KiB", "0x10", "Inf", "NaN", "1e5m",
	"1mm", "999999999999999999999999999999", "1e+1", "1e.5", "+.5Gi", "-", "+", "",
	"1e-999999999", "1E+999999999", "1e2147483648", "0.1e1000", "1" + strings.Repeat("0", 1<<10), "0." + strings.Repeat("0", 1<<10) + "1",
}

// values are JSON to try in the place of what the schema asks for.
func (t *trial) values(schema map[string]any) []string {
	values := slices.Clone(otherTypes)
	if schema["type"] == "integer" || schema["x-kubernetes-int-or-string"] == true {
		values = append(values, numbers...)
	}
	if schema["type"] != "string" && schema["x-kubernetes-int-or-string"] != true {
		return values
	}
	for _, spelling := range spellings {
		values = append(values, string(encode(spelling)))
	}
	for range decodeMutants {
		values = append(values, string(encode(t.mutant(spellings[t.random.IntN(len(spellings))]))))
	}
	return values
}

const mutantLetters = "0123456789.,+-: eEhmsunµdTZtzKMGi_x\t"

// mutant alters a spelling in one to three places.
func (t *trial) mutant(spelling string) string {
	letters, alphabet := []rune(spelling), []rune(mutantLetters)
	for range 1 + t.random.IntN(3) {
		at := t.random.IntN(len(letters) + 1)
		letter := alphabet[t.random.IntN(len(alphabet))]
		switch t.random.IntN(3) {
		case 0:
			letters = slices.Insert(letters, at, letter)
		case 1:
			letters = slices.Delete(letters, min(at, len(letters)), min(at+1, len(letters)))
		default:
			if at < len(letters) {
				letters[at] = letter
			}
		}
	}
	return string(letters)
}

// keep creates the object, whose status is then written on trial: what is created gets none.
func (t *trial) keep(ctx context.Context) {
	GinkgoHelper()
	answer, err := t.rest.Post().AbsPath(t.path()).SetHeader("Content-Type", "application/json").Body(encode(t.whole)).DoRaw(ctx)
	Expect(err).NotTo(HaveOccurred(), "an object with every field set is admitted: give the field that is not a value in `fitting`\n%s", answer)
	DeferCleanup(func(ctx context.Context) {
		Expect(t.rest.Delete().AbsPath(t.path() + "/whole").Do(ctx).Error()).To(Succeed())
	})
	var created struct {
		Metadata map[string]any `json:"metadata"`
	}
	Expect(json.Unmarshal(answer, &created)).To(Succeed())
	t.whole = replaced(t.whole, []any{"metadata"}, created.Metadata)
}

func (t *trial) path() string { return "/apis/dory.io/v1alpha1/" + t.namespace + t.resource }

// judge has the API server judge a part of the document, without keeping it, and Go decode what it answers. A refusal is
// fine; a document that is admitted and not decoded is an error.
func (t *trial) judge(ctx context.Context, part string, document any) (refusal, err error) {
	request := t.rest.Post().AbsPath(t.path())
	if part == "status" {
		request = t.rest.Put().AbsPath(t.path() + "/whole/status")
	} else {
		document = replaced(document, []any{"metadata"}, map[string]any{"name": "another"})
	}
	answer, refusal := request.Param("dryRun", "All").SetHeader("Content-Type", "application/json").Body(encode(document)).DoRaw(ctx)
	if refusal != nil {
		return refusal, nil
	}
	return nil, t.decode(answer)
}

// decode is Go's decoder. What it would compute on for hours, it does not take.
func (t *trial) decode(raw []byte) error {
	if err := quantity.InJSON(raw, t.decoded); err != nil {
		return err
	}
	_, _, err := t.decoder.Decode(raw, nil, nil)
	return err
}

func encode(value any) []byte {
	GinkgoHelper()
	text, err := json.Marshal(value)
	Expect(err).NotTo(HaveOccurred())
	return text
}
