package manifests

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// TestExplain holds what kubectl explain says of each field against the schema: the meaning of each value, the default,
// the bounds, and whether it can change. Nowhere else would a person look for them.
func TestExplain(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(configDir, "crd", "bases", "*.yaml"))
	if err != nil || len(files) < 4 {
		t.Fatalf("CRDs: %v, %v", files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &crd); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, version := range crd.Spec.Versions {
			root := version.Schema.OpenAPIV3Schema
			for _, part := range []string{"spec", "status"} {
				if schema, ok := root.Properties[part]; ok {
					explained(t, field{path: crd.Spec.Names.Singular + "." + part, schema: schema})
				}
			}
		}
	}
}

// field is one field with what its parents say of all that is below them.
type field struct {
	path   string
	schema apiextensionsv1.JSONSchemaProps
	// settled says that a parent says whether it can change.
	settled bool
}

// foreign are the fields whose schema below is Kubernetes' own.
var foreign = regexp.MustCompile(`\.(env|conditions)$`)

func explained(t *testing.T, f field) {
	t.Helper()
	for _, fault := range faults(&f) {
		t.Errorf("%s: %s, but the description is:\n%s", f.path, fault, f.schema.Description)
	}
	if foreign.MatchString(f.path) {
		return
	}
	for name, schema := range f.schema.Properties {
		explained(t, field{f.path + "." + name, schema, f.settled})
	}
	if items := f.schema.Items; items != nil && items.Schema != nil {
		for name, schema := range items.Schema.Properties {
			explained(t, field{f.path + "[]." + name, schema, f.settled})
		}
	}
}

func faults(f *field) []string {
	if strings.TrimSpace(f.schema.Description) == "" {
		return []string{"must be described"}
	}
	found := append(meanings(f.schema), hidden(f.schema)...)
	if strings.Contains(f.path, ".status") {
		return found // People do not write it, so defaults, bounds and changes say nothing.
	}
	found = append(append(found, defaults(f.schema)...), bounds(f.schema)...)
	f.settled = f.settled || changes.MatchString(f.schema.Description)
	if leaf := len(f.schema.Properties) == 0; leaf && !f.settled {
		found = append(found, "must say whether it can change")
	}
	return found
}

var changes = regexp.MustCompile(`(?s)Immutable|A\s+change\s+moves|can\s+change`)

// meanings: each value of an enum has a line of its own with what it means.
func meanings(schema apiextensionsv1.JSONSchemaProps) []string {
	var found []string
	for _, value := range schema.Enum {
		name := strings.Trim(string(value.Raw), `"`)
		if !regexp.MustCompile(`(?m)^\s*- ` + regexp.QuoteMeta(name) + `: \S+ \S+`).MatchString(schema.Description) {
			found = append(found, fmt.Sprintf("must say in a line %q what that value means", "- "+name+": …"))
		}
	}
	return found
}

// hidden are defaults that no object shows, because what they are in is not set: they must be told one level higher.
func hidden(schema apiextensionsv1.JSONSchemaProps) []string {
	if schema.Default != nil {
		return nil
	}
	var found []string
	for name, below := range schema.Properties {
		if below.Default == nil || below.Default.Raw == nil || len(below.Properties) > 0 {
			continue
		}
		if want := name + " " + plain(below.Default); !mentions(schema.Description, want) && !topLevel(schema) {
			found = append(found, fmt.Sprintf("must say %q, because it applies also where this field is unset", want))
		}
	}
	return found
}

// topLevel: a spec is always there, and kubectl get -o yaml shows the defaults of its fields.
func topLevel(schema apiextensionsv1.JSONSchemaProps) bool {
	_, image := schema.Properties["image"]
	_, processor := schema.Properties["processor"]
	_, edgeNode := schema.Properties["nodeName"]
	return image || processor || edgeNode
}

func defaults(schema apiextensionsv1.JSONSchemaProps) []string {
	if schema.Default == nil || len(schema.Properties) > 0 {
		return nil
	}
	if !strings.Contains(schema.Description, "default") || !mentions(schema.Description, plain(schema.Default)) {
		return []string{"must say that the default is " + plain(schema.Default)}
	}
	return nil
}

func plain(value *apiextensionsv1.JSON) string { return strings.Trim(string(value.Raw), `"`) }

// bounds: a least length of 1 goes without saying.
func bounds(schema apiextensionsv1.JSONSchemaProps) []string {
	wanted := map[string]string{}
	for name, bound := range map[string]*float64{"minimum": schema.Minimum, "maximum": schema.Maximum} {
		if bound != nil {
			wanted[name] = strconv.FormatFloat(*bound, 'f', -1, 64)
		}
	}
	for name, bound := range map[string]*int64{"maxLength": schema.MaxLength, "maxItems": schema.MaxItems, "maxProperties": schema.MaxProperties} {
		if bound != nil {
			wanted[name] = strconv.FormatInt(*bound, 10)
		}
	}
	var found []string
	for name, value := range wanted {
		if !mentions(schema.Description, value) {
			found = append(found, "must say that its "+name+" is "+value)
		}
	}
	return found
}

// mentions looks for whole words, wherever the lines break.
func mentions(description, words string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(words), " ", `\s+`)
	return regexp.MustCompile(`(^|[\s(])` + pattern + `($|[\s,.;:)])`).MatchString(description)
}

// TestExplainConditions finds every type of condition that a Processor can have in what explain says of its conditions.
func TestExplainConditions(t *testing.T) {
	source, err := os.ReadFile(filepath.Join("..", "..", "api", "v1alpha1", "conditions.go"))
	if err != nil {
		t.Fatal(err)
	}
	types := regexp.MustCompile(`(?m)^\s*Condition\w+ += "(\w+)"`).FindAllStringSubmatch(string(source), -1)
	text, err := os.ReadFile(filepath.Join(configDir, "crd", "bases", "dory.io_processors.yaml"))
	if err != nil || len(types) < 5 {
		t.Fatalf("%d types of conditions: %v", len(types), err)
	}
	for _, kind := range types {
		if !regexp.MustCompile(`(?m)^\s*- ` + kind[1] + `: \S+ \S+`).Match(text) {
			t.Errorf("status.conditions of a Processor does not say what %s means", kind[1])
		}
	}
}

// TestExplainCanFail shows the test above each kind of fault.
func TestExplainCanFail(t *testing.T) {
	text := func(value string) *apiextensionsv1.JSON { return &apiextensionsv1.JSON{Raw: []byte(value)} }
	props := func(change func(*apiextensionsv1.JSONSchemaProps)) apiextensionsv1.JSONSchemaProps {
		schema := apiextensionsv1.JSONSchemaProps{Description: "strategy is Auto or Live. It can change at any time."}
		change(&schema)
		return schema
	}
	for name, test := range map[string]struct {
		schema apiextensionsv1.JSONSchemaProps
		want   int
	}{
		"nothing to say": {props(func(*apiextensionsv1.JSONSchemaProps) {}), 0},
		"no description": {apiextensionsv1.JSONSchemaProps{Description: " "}, 1},
		"values without a meaning": {props(func(s *apiextensionsv1.JSONSchemaProps) {
			s.Enum = []apiextensionsv1.JSON{*text(`"Auto"`), *text(`"Live"`)}
		}), 2},
		"an unsaid default": {props(func(s *apiextensionsv1.JSONSchemaProps) { s.Default = text(`"Auto"`) }), 1},
		"an unsaid bound":   {props(func(s *apiextensionsv1.JSONSchemaProps) { s.MaxLength = new(int64(64)) }), 1},
		"a part of a number": {props(func(s *apiextensionsv1.JSONSchemaProps) {
			s.Description += " At most 640."
			s.MaxLength = new(int64(64))
		}), 1},
		"nothing about changes": {apiextensionsv1.JSONSchemaProps{Description: "strategy is a strategy."}, 1},
		"a hidden default": {props(func(s *apiextensionsv1.JSONSchemaProps) {
			s.Properties = map[string]apiextensionsv1.JSONSchemaProps{"strategy": {Default: text(`"Auto"`)}}
		}), 1},
	} {
		t.Run(name, func(t *testing.T) {
			if got := faults(&field{path: "processor.spec.x", schema: test.schema}); len(got) != test.want {
				t.Errorf("found %q, want %d faults", got, test.want)
			}
		})
	}
}
