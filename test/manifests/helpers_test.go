package manifests

import (
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/gomega"
	gomegatypes "github.com/onsi/gomega/types"
)

// timeToSettle bounds how long the API server may take to serve a CRD or to enforce a policy.
const timeToSettle = 20 * time.Second

// indent puts n spaces before every line.
func indent(n int, lines string) string {
	pad := strings.Repeat(" ", n)
	return pad + strings.ReplaceAll(strings.TrimSpace(lines), "\n", "\n"+pad)
}

// manifest is an object of our API group with the given spec, as YAML.
func manifest(kind, name, spec string) string {
	m := fmt.Sprintf("apiVersion: dory.io/v1alpha1\nkind: %s\nmetadata:\n  name: %s\n", kind, name)
	if kind != "EdgeNode" {
		m += "  namespace: default\n"
	}
	if spec != "" {
		m += "spec:\n" + indent(2, spec) + "\n"
	}
	return m
}

func processor(name, spec string) string { return manifest("Processor", name, spec) }

// ownedProcessor mirrors a database row.
func ownedProcessor(name string) string {
	return fmt.Sprintf(`apiVersion: dory.io/v1alpha1
kind: Processor
metadata:
  name: %s
  namespace: default
  labels: {dory.io/source: database, team: vision}
  annotations: {dory.io/row-revision: "7", dory.io/processor-id: Proc_6}
spec:
  processorID: Proc_6
  image: example/camera:1
`, name)
}

func processorWithDivisor(divisor string) string {
	return processor("divisor", "image: a\nenv: [{name: B, value: b},"+
		" {name: A, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: "+divisor+"}}}]")
}

func epochOf(name string, epoch int, holder string) string {
	return manifest("ProcessorEpoch", name, fmt.Sprintf(
		"processorID: %s\nepoch: %d\nholder: %q\nreason: Start\nissuedAt: \"2026-01-02T03:04:05Z\"", name, epoch, holder))
}

// spec is a change of one field of the spec; nil removes it.
func spec(field string, value any) map[string]any {
	return map[string]any{"spec": map[string]any{field: value}}
}

// metadata is a change of one label or annotation; nil removes it.
func metadata(field, key string, value any) map[string]any {
	return map[string]any{"metadata": map[string]any{field: map[string]any{key: value}}}
}

// merge puts change over obj; nil removes.
func merge(obj, change map[string]any) {
	for key, value := range change {
		below, isMap := value.(map[string]any)
		current, hasMap := obj[key].(map[string]any)
		switch {
		case value == nil:
			delete(obj, key)
		case isMap && hasMap:
			merge(current, below)
		default:
			obj[key] = value
		}
	}
}

// refusedBecause matches an error that says all of that.
func refusedBecause(because ...string) gomegatypes.GomegaMatcher {
	all := []gomegatypes.GomegaMatcher{HaveOccurred()}
	for _, text := range because {
		all = append(all, MatchError(ContainSubstring(text)))
	}
	return And(all...)
}
