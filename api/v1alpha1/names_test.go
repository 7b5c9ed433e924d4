package v1alpha1

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"k8s.io/apimachinery/pkg/util/validation"
	"pgregory.net/rapid"
)

func TestObjectName(t *testing.T) {
	tests := map[string]struct{ id, want string }{
		"a legal name stays":                {"cam-1", "cam-1"},
		"a UUID stays":                      {"3f2b8f0e-8f43-4c8e-9d0a-0b1f6a3c7e11", "3f2b8f0e-8f43-4c8e-9d0a-0b1f6a3c7e11"},
		"45 characters stay":                {strings.Repeat("a", 45), strings.Repeat("a", 45)},
		"46 characters are cut":             {strings.Repeat("a", 46), strings.Repeat("a", 34) + "-mzbrcdcwfd"},
		"upper case and underscore":         {"Proc_6", "proc-6-rzkm33b7ez"},
		"spaces":                            {"line 4 east", "line-4-east-s3j3sc7z32"},
		"letters that no name has":          {"Kühlung Süd", "k-hlung-s-d-3qqsuiuuao"},
		"nothing readable at all":           {"目标", "id-k4dazcfdnp"},
		"a leading dash":                    {"-a", "a-yj2isf4qgr"},
		"dots, which a label does not have": {"a.b", "a-b-fzztnxeoxk"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := ObjectName(tt.id); got != tt.want {
				t.Errorf("ObjectName(%q) = %q, want %q", tt.id, got, tt.want)
			}
		})
	}
}

func TestObjectNameIsLegalStableAndDistinct(t *testing.T) {
	ids := rapid.OneOf(
		rapid.StringN(1, 512, -1),
		rapid.StringMatching(`[a-zA-Z0-9_. -]{1,60}`),
		rapid.StringOfN(rapid.RuneFrom(nil, unicode.Letter, unicode.Digit), 1, 300, -1),
	)
	rapid.Check(t, func(t *rapid.T) {
		a, b := ids.Draw(t, "a"), ids.Draw(t, "b")
		name := ObjectName(a)
		if len(name) > maxNameLength || len(validation.IsDNS1123Label(name)) > 0 {
			t.Fatalf("ObjectName(%q) = %q, which is no legal name", a, name)
		}
		if again := ObjectName(a); again != name {
			t.Fatalf("ObjectName(%q) = %q, then %q", a, name, again)
		}
		if a != b && ObjectName(b) == name {
			t.Fatalf("%q and %q are both called %q", a, b, name)
		}
	})
}

func FuzzObjectName(f *testing.F) {
	for _, id := range []string{"cam-1", "Proc_6", "", "-", "\x00\xff", strings.Repeat("é", 300), "a-"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		name := ObjectName(id)
		if len(name) > maxNameLength || len(validation.IsDNS1123Label(name)) > 0 {
			t.Errorf("ObjectName(%q) = %q, which is no legal name", id, name)
		}
		if len(id) <= maxNameLength && len(validation.IsDNS1123Label(id)) == 0 && name != id {
			t.Errorf("ObjectName(%q) = %q, want the id itself", id, name)
		}
	})
}

// The longest of every name that the operator makes of a Processor's has room where it is written: in an object's name, and
// in a label of the target's pod.
func TestMigrationNameIsLegalAndDistinct(t *testing.T) {
	processor := rapid.StringMatching(`[a-z][a-z0-9-]{0,43}[a-z0-9]`)
	alike := rapid.StringMatching(`[a-z][a-z0-9-]{39}[ab]{5}`) // Cut anywhere, many of these are one.
	purpose := rapid.OneOf(rapid.Just("update-0123abcd"), rapid.Just("drain-aaaabbbb"), rapid.StringMatching(`[a-z]{1,13}-[a-z0-9]{1,10}`))
	number := rapid.OneOf(rapid.IntRange(1, 12), rapid.IntRange(1, math.MaxInt32))
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.OneOf(processor, alike)
		a, b, why, n := names.Draw(t, "a"), names.Draw(t, "b"), purpose.Draw(t, "purpose"), number.Draw(t, "number")
		name := MigrationName(a, why, n)
		if problems := append(validation.IsDNS1123Label(name), validation.IsValidLabelValue(name)...); len(problems) > 0 {
			t.Fatalf("MigrationName(%q, %q, %d) = %q: %v", a, why, n, name, problems)
		}
		if a != b && MigrationName(b, why, n) == name {
			t.Fatalf("the moves of %q and %q are both called %q", a, b, name)
		}
		if want := MigrationPrefix(a, why) + strconv.Itoa(n); name != want {
			t.Fatalf("%q does not begin with what all its attempts do: %q", name, want)
		}
	})
}

func TestMigrationNameSaysWhatItCan(t *testing.T) {
	long := strings.Repeat("a", 45)
	for _, test := range []struct{ processor, purpose, want string }{
		{"cam", "drain-aaaabbbb", "cam-drain-aaaabbbb-7"},
		{strings.Repeat("a", 36), "update-0123abcd", strings.Repeat("a", 36) + "-update-0123abcd-7"},
		{long, "update-0123abcd", strings.Repeat("a", 25) + "-" + Hash(long) + "-update-0123abcd-7"},
		{strings.Repeat("b-", 22) + "b", "update-0123abcd", strings.Repeat("b-", 12) + "b-" + Hash(strings.Repeat("b-", 22)+"b") + "-update-0123abcd-7"},
	} {
		if got := MigrationName(test.processor, test.purpose, 7); got != test.want {
			t.Errorf("MigrationName(%q, %q, 7) = %q, want %q", test.processor, test.purpose, got, test.want)
		}
	}
}
