package v1alpha1

import (
	"os"
	"strings"
	"testing"
)

// sha256Hex is a digest's digits.
var sha256Hex = strings.Repeat("0123456789abcdef", 4)

// The oracle in test/oracle compares the grammar with the kubelet's own parser; these are the cases that people meet.
func TestIsImage(t *testing.T) {
	for reference, want := range map[string]bool{
		"dory-counter:dev": true,
		"counter":          true,
		"library/counter":  true,
		"registry.example:5000/team/app_x/y__z:V1.0_a-b": true,
		"localhost/app":                                                 true,
		"Registry.Example/app:1":                                        true,
		"[2001:db8::1]:5000/app":                                        true,
		"gcr.io/a/b@sha256:" + sha256Hex:                                true,
		"gcr.io/a/b:1.0@sha256:" + sha256Hex:                            true,
		"gcr.io/a/b@sha512:" + sha256Hex + sha256Hex:                    true,
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com/a:b":              true,
		"a/" + strings.Repeat("b", 60) + ":" + strings.Repeat("c", 128): true,
		"":                                false,
		"My Proc:1":                       false,
		"MyProc:1":                        false,
		"registry.example/MyProc":         false,
		"app:":                            false,
		"app:" + strings.Repeat("c", 129): false,
		"app@sha256:abc":                  false,
		"app@sha256:" + sha256Hex[1:]:     false,
		sha256Hex:                         false,
		"https://registry.example/app":    false,
		"registry.example//app":           false,
		"-app":                            false,
		"app-":                            false,
		"app\n":                           false,
		" app":                            false,
		"registry.example/app:1:2":        false,
		"a___b":                           false,
	} {
		if got := IsImage(reference); got != want {
			t.Errorf("IsImage(%q) = %t, want %t", reference, got, want)
		}
	}
}

func TestTheCRDHasTheGrammar(t *testing.T) {
	crd, err := os.ReadFile("../../config/crd/bases/dory.io_processors.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// YAML breaks long lines and doubles quotes.
	text := strings.ReplaceAll(strings.Join(strings.Fields(string(crd)), ""), "''", "'")
	if !strings.Contains(text, "self.matches('"+ImagePattern+"')") {
		t.Error("the rule of spec.image is not made of ImagePattern: change both, and run make manifests")
	}
}
