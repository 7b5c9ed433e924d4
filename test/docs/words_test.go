package docs

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dory-io/dory/test/docs/markdown"
)

// sources is the text of all files that say what exists: code, manifests, migrations, scripts; not the documents.
type sources struct {
	// code is everything, and flags what registers the operator's.
	code, flags, tests string
}

func readSources(tb testing.TB) *sources {
	tb.Helper()
	var code, flags, tests strings.Builder
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || slices.Contains([]string{"bin", "node_modules"}, name) || path == filepath.Join(root, "test", "docs")) {
				return fs.SkipDir
			}
			return nil
		}
		if !slices.Contains([]string{".go", ".yaml", ".sql", ".mk", ".sh", ""}, filepath.Ext(name)) && name != "Makefile" {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		code.Write(text)
		if strings.HasSuffix(name, "_test.go") {
			tests.Write(text)
		}
		if strings.Contains(path, "cmd/dory-operator") || strings.Contains(path, "hack/") || strings.Contains(path, "examples/") || strings.Contains(path, "test/bench/") {
			flags.Write(text)
		}
		return nil
	})
	must(tb, err)
	return &sources{code: code.String(), flags: flags.String(), tests: tests.String()}
}

// kinds of words that name something, and how to find out whether it exists. The first that matches decides.
var (
	aFlag     = regexp.MustCompile(`^--?([a-z][a-z0-9-]+)([= ].*)?$`)
	aTest     = regexp.MustCompile(`^Test[A-Z]\w*$`)
	aVariable = regexp.MustCompile(`^\$?(DORY_[A-Z_]+|COUNTER_[A-Z_]+|[A-Z]+_[A-Z_]+)(=.*)?$`)
	aMetric   = regexp.MustCompile(`^(dory_[a-z_]+)(\{.*\})?$`)
	aField    = regexp.MustCompile(`^(spec|status)(\.[a-zA-Z]+)+$`)
	aReason   = regexp.MustCompile(`^[A-Z][a-z]+([A-Z][a-zA-Z]+)+$`)
	aColumn   = regexp.MustCompile(`^[a-z]+(_[a-z]+)+$`)
	aLabel    = regexp.MustCompile(`^(dory\.io/[a-z-]+)(=.*)?$`)
	aPath     = regexp.MustCompile(`^\.?[A-Za-z0-9_.-]+(/[A-Za-z0-9_.*-]+)+$`)
	aFile     = regexp.MustCompile(`^[a-zA-Z0-9_.-]+\.(go|md|yaml|sql|mk)$`)
)

// othersWords are names that Kubernetes or others made, and that the documents may use without a trace of them in our code.
var othersWords = []string{
	"NodeClaim", "PodDisruptionBudget", "ReadWriteOncePod", "PreferNoSchedule", "MostAllocated", "ValidatingWebhookConfiguration",
	// The API server puts the webhook's name before the key of an audit annotation.
	"eviction.dory.io/reason",
	"cert-manager.io/inject-ca-from",
	// Kubernetes 1.37, and off there by default.
	"EvictionRequest", "spec.evictionResponders", "status.responders",
}

// TestWords looks up everything that the documents name in backticks: flags, metrics, fields, reasons, labels, variables, files, tests.
func TestWords(t *testing.T) {
	known := readSources(t)
	kubectlFlags := allKubectlFlags(t)
	for _, doc := range documents(t) {
		t.Run(doc.Path, func(t *testing.T) {
			for _, word := range doc.Spans {
				if !exists(t, known, kubectlFlags, doc, word.Text) {
					t.Errorf("%s: nothing is called `%s`", word.Where, word.Text)
				}
			}
		})
	}
}

func exists(tb testing.TB, known *sources, kubectlFlags string, doc *markdown.Document, word string) bool {
	tb.Helper()
	switch {
	case slices.Contains(othersWords, word):
		return true
	case aFlag.MatchString(word):
		name := aFlag.FindStringSubmatch(word)[1]
		return strings.Contains(known.flags, `"`+name+`"`) || strings.Contains(kubectlFlags, "--"+name+"=") || strings.Contains(known.flags, "--"+name)
	case aTest.MatchString(word):
		return strings.Contains(known.tests, "func "+word+"(")
	case aMetric.MatchString(word):
		return strings.Contains(known.code, `"`+aMetric.FindStringSubmatch(word)[1])
	case aLabel.MatchString(word):
		return strings.Contains(known.code, aLabel.FindStringSubmatch(word)[1])
	case aField.MatchString(word):
		return isField(word)
	case aVariable.MatchString(word):
		return hasWord(known.code, aVariable.FindStringSubmatch(word)[1])
	case aReason.MatchString(word):
		return hasWord(known.code, word)
	case aColumn.MatchString(word):
		return hasWord(known.code, word)
	case aFile.MatchString(word):
		return isFile(doc, word) || hasWord(known.code, strings.TrimSuffix(word, filepath.Ext(word))) || anywhere(word)
	case aPath.MatchString(word):
		return isFile(doc, word) || strings.Contains(known.code, word)
	}
	return true
}

// hasWord looks for a name that ends there. It may begin within a longer one: CamelCase names are parts of constants, such as
// ReasonUnschedulable.
func hasWord(text, word string) bool {
	for {
		_, after, found := strings.Cut(text, word)
		if !found || after == "" || !isWordByte(after[0]) {
			return found
		}
		text = after
	}
}

func isWordByte(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

func isFile(doc *markdown.Document, path string) bool {
	for _, base := range []string{root, filepath.Join(root, filepath.Dir(doc.Path))} {
		if found, err := filepath.Glob(filepath.Join(base, path)); err == nil && len(found) > 0 {
			return true
		}
	}
	// What is built or runs is not in a fresh checkout.
	return strings.HasPrefix(path, "bin/") || strings.HasPrefix(path, ".run/")
}

// anywhere finds a file that is named without its folder.
func anywhere(name string) bool {
	found := false
	_ = filepath.WalkDir(root, func(_ string, entry fs.DirEntry, err error) error {
		found = found || err == nil && entry.Name() == name
		return nil
	})
	return found
}

// isField asks the API server for the field's description, in whichever kind has it.
func isField(path string) bool {
	for _, kind := range []string{"processor", "processormigration", "edgenode", "processorepoch", "pod", "deployment"} {
		if _, err := kubectl("", "explain", kind+"."+path); err == nil {
			return true
		}
	}
	// The overlay is a pod's.
	rest, overlay := strings.CutPrefix(path, "spec.podTemplate.")
	if overlay {
		_, err := kubectl("", "explain", "pod."+rest)
		return err == nil
	}
	return false
}

func allKubectlFlags(tb testing.TB) string {
	tb.Helper()
	var text strings.Builder
	for _, of := range [][]string{{"options"}, {"get", "--help"}, {"drain", "--help"}, {"delete", "--help"}, {"apply", "--help"}, {"logs", "--help"}, {"wait", "--help"}, {"debug", "--help"}, {"annotate", "--help"}, {"rollout", "restart", "--help"}} {
		out, err := exec.CommandContext(tb.Context(), world.kubectl, of...).CombinedOutput()
		must(tb, err)
		text.Write(out)
	}
	return text.String()
}

// TestLinks follows every link to a place of this repository.
func TestLinks(t *testing.T) {
	for _, doc := range documents(t) {
		for _, link := range doc.Links {
			path, anchor, _ := strings.Cut(link.Target, "#")
			if strings.Contains(path, "://") {
				continue
			}
			target := doc
			if path != "" {
				full := filepath.Join(filepath.Dir(doc.Path), path)
				if _, err := os.Stat(filepath.Join(root, full)); err != nil {
					t.Errorf("%s: there is no %s", link.Where, full)
					continue
				}
				if anchor == "" {
					continue
				}
				var err error
				target, err = markdown.Read(root, full)
				must(t, err)
			}
			if !slices.ContainsFunc(target.Headings, func(heading string) bool { return markdown.Slug(heading) == anchor }) {
				t.Errorf("%s: %s has no heading #%s", link.Where, target.Path, anchor)
			}
		}
	}
}

// TestEveryDocumentIsLinked from README, or no one finds it.
func TestEveryDocumentIsLinked(t *testing.T) {
	readme, err := markdown.Read(root, "README.md")
	must(t, err)
	for _, doc := range documents(t) {
		linked := func(link markdown.Link) bool { return strings.SplitN(link.Target, "#", 2)[0] == doc.Path }
		if doc.Path != "README.md" && !slices.ContainsFunc(readme.Links, linked) {
			t.Errorf("README.md does not link to %s", doc.Path)
		}
	}
}

// TestMakeHelp reads what `make help` says: each heading once, with targets, and each target under the heading where one would look.
func TestMakeHelp(t *testing.T) {
	command := exec.CommandContext(t.Context(), "make", "--no-print-directory", "help")
	command.Dir = root
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("make help: %v\n%s", err, out)
	}
	under, heading := map[string]string{}, ""
	targets := map[string]int{}
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "usage:"):
		case !strings.HasPrefix(line, " "):
			heading = line
			if _, twice := targets[heading]; twice {
				t.Errorf("the heading %q is there twice", heading)
			}
			targets[heading] = 0
		default:
			under[strings.Fields(line)[0]] = heading
			targets[heading]++
		}
	}
	for heading, n := range targets {
		if n == 0 {
			t.Errorf("nothing stands under %q", heading)
		}
	}
	for target, want := range map[string]string{
		"demo": "Run it", "test": "Test it", "test-faults": "Test it", "bench-sync": "Measure it", "generate": "Change it", "build": "Build it",
		"cluster-up": "Tools and the local cluster", "tools": "Tools and the local cluster", "k8s-binaries": "Tools and the local cluster",
	} {
		if under[target] != want {
			t.Errorf("make help lists %s under %q, want %q", target, under[target], want)
		}
	}
}
