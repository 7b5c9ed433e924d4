package pod_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
	"github.com/dory-io/dory/internal/pod"
)

// expand is what a kubelet makes of a value in env, command and args, by the rules of Kubernetes'
// third_party/forked/golang/expansion: $$ is a $, $(NAME) the variable or, where there is none, itself, and all else stays.
func expand(text string, variables map[string]string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		switch end := strings.IndexByte(text[i:], ')'); {
		case text[i] == '$':
			b.WriteByte('$')
		case text[i] != '(' || end < 0:
			b.WriteString(text[i-1 : i+1])
		default:
			name := text[i+1 : i+end]
			value, known := variables[name]
			if !known {
				value = "$(" + name + ")"
			}
			b.WriteString(value)
			i += end
		}
	}
	return b.String()
}

// TestExpandIsKubernetes' own table, in part.
func TestExpandIsKubernetes(t *testing.T) {
	variables := map[string]string{"VAR_A": "A", "VAR_B": "B", "VAR_C": "C", "VAR_REF": "$(VAR_A)", "VAR_EMPTY": ""}
	for in, want := range map[string]string{
		"$(VAR_A)": "A", "___$(VAR_B)___": "___B___", "$(VAR_A)-1": "A-1", "$(VAR_A)_$(VAR_B)_$(VAR_C)": "A_B_C",
		"$$(VAR_B)_$(VAR_A)": "$(VAR_B)_A", "$$$$$$(VAR_A)": "$$$(VAR_A)", "$$$$$$$(VAR_A)": "$$$A", "f000-$$VAR_A": "f000-$VAR_A",
		"foo\\$(VAR_C)bar": "foo\\Cbar", "foo\\\\$(VAR_C)bar": "foo\\\\Cbar", "$(VAR_REF)": "$(VAR_A)", "%%$(VAR_REF)--$(VAR_REF)%%": "%%$(VAR_A)--$(VAR_A)%%",
		"foo$(VAR_EMPTY)bar": "foobar", "$(VAR_FOO)-$(VAR_A)": "$(VAR_FOO)-A", "$(foo$$var)": "$(foo$$var)",
		"$VAR_A": "$VAR_A", "$": "$", "$$": "$", "$$$": "$$", "a$": "a$", "$(": "$(", "$(VAR_A": "$(VAR_A", "$()": "$()", "\n": "\n", "$\n": "$\n", "$(VAR_A)$": "A$",
	} {
		if got := expand(in, variables); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestVerbatimTextsArriveAsTheyAre(t *testing.T) {
	variables := map[string]string{"POD_NAME": "dory-cam-x7k2", "": "empty", "a": "b"}
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOf(rapid.SampledFrom([]string{"$", "$$", "(", ")", "$(", "$(POD_NAME)", "$(NONE)", "a", "$()", "é", `"`, "\n", "{", "}"})).Draw(t, "text"), "")
		if got := expand(pod.Verbatim(text), variables); got != text {
			t.Fatalf("%q is written %q and arrives as %q", text, pod.Verbatim(text), got)
		}
	})
}

// TestVerbatimLeavesAloneWhatWasRight: what is escaped differs from what older operators wrote, and moves the processor.
func TestVerbatimLeavesAloneWhatWasRight(t *testing.T) {
	for _, text := range []string{"", "a", "pa$word", "$HOME/bin", "100$", "$", "${NAME}", `{"re":"^a$"}`} {
		if got := pod.Verbatim(text); got != text || expand(text, map[string]string{"NAME": "x", "HOME": "y"}) != text {
			t.Errorf("%q became %q", text, got)
		}
	}
}

func TestAnIDWithReferencesArrivesAsItIs(t *testing.T) {
	for _, id := range []string{"cam $(POD_NAME)", "a$$b", "$(PROCESSOR_ID)"} {
		env := envOf(t, build(t, processor(func(p *doryv1alpha1.Processor) { p.Spec.ProcessorID = id })))
		for _, name := range []string{"PROCESSOR_ID", "DORY_PROCESSOR_ID"} {
			if got := expand(env[name], env); got != id {
				t.Errorf("id %q arrives as %q in %s", id, got, name)
			}
		}
	}
}
