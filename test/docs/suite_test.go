package docs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/dory-io/dory/internal/store/pgtest"
	"github.com/dory-io/dory/test/docs/markdown"
)

const root = "../.."

// world is what the commands of the documents are run against.
var world struct {
	kubectl    string
	kubeconfig string
	database   *pgtest.Server
}

func TestMain(m *testing.M) {
	if name := os.Getenv(shimVariable); name != "" {
		os.Exit(shim(name, os.Args[1:]))
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctrl.SetLogger(logr.Discard())
	environment := &envtest.Environment{}
	stop, err := startWorld(environment)
	defer stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "test/docs:", err)
		return 1
	}
	return pgtest.Main(m, &world.database)
}

// startWorld is an API server with everything that Dory ships installed, and the objects that the documents speak of.
func startWorld(environment *envtest.Environment) (stop func(), err error) {
	stop = func() {}
	if _, err = environment.Start(); err != nil {
		return stop, fmt.Errorf("no API server (run `make test`, or set KUBEBUILDER_ASSETS to bin/k8s): %w", err)
	}
	directory, err := os.MkdirTemp("", "dory-docs-")
	stop = func() {
		if err := errors.Join(environment.Stop(), os.RemoveAll(directory)); err != nil {
			fmt.Fprintln(os.Stderr, "test/docs:", err)
		}
	}
	if err != nil {
		return stop, err
	}
	user, err := environment.AddUser(envtest.User{Name: "admin", Groups: []string{"system:masters"}}, nil)
	if err != nil {
		return stop, err
	}
	config, err := user.KubeConfig()
	if err != nil {
		return stop, err
	}
	world.kubeconfig = filepath.Join(directory, "kubeconfig")
	world.kubectl, err = filepath.Abs(environment.ControlPlane.KubectlPath)
	if err != nil {
		return stop, err
	}
	if err := os.WriteFile(world.kubeconfig, config, 0o600); err != nil {
		return stop, err
	}
	return stop, furnish()
}

// furnish installs Dory and makes the objects of furniture.yaml.
func furnish() error {
	for _, part := range []string{"guard", "foundation", "default"} {
		if _, err := kubectl("", "apply", "--server-side", "-k", filepath.Join(root, "config", part)); err != nil {
			return err
		}
	}
	if _, err := kubectl("", "wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"); err != nil {
		return err
	}
	_, err := kubectl("", "apply", "--server-side", "-f", "testdata/furniture.yaml")
	return err
}

// kubectl runs the real one as an administrator.
func kubectl(stdin string, args ...string) (string, error) {
	command := exec.CommandContext(context.Background(), world.kubectl, append([]string{"--kubeconfig", world.kubeconfig}, args...)...)
	command.Stdin = strings.NewReader(stdin)
	out, err := command.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// documents are all that is written for people.
func documents(tb testing.TB) []*markdown.Document {
	tb.Helper()
	paths := []string{"README.md", "CONTRIBUTING.md", "sdk/README.md"}
	more, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(more) == 0 {
		tb.Fatalf("docs/*.md: %d files, error %v", len(more), err)
	}
	for _, path := range more {
		paths = append(paths, "docs/"+filepath.Base(path))
	}
	read := make([]*markdown.Document, 0, len(paths))
	for _, path := range paths {
		doc, err := markdown.Read(root, path)
		if err != nil {
			tb.Fatal(err)
		}
		read = append(read, doc)
	}
	return read
}

// bash runs a script, and says what a person would have seen.
func bash(tb testing.TB, directory, script string, limit time.Duration, environment ...string) (string, error) {
	tb.Helper()
	var out bytes.Buffer
	command := exec.CommandContext(tb.Context(), "timeout", "--kill-after=5s", fmt.Sprintf("%.0f", limit.Seconds()), "bash", "-euo", "pipefail", "-O", "expand_aliases")
	command.Dir = directory
	command.Env = append(os.Environ(), environment...)
	command.Stdin = strings.NewReader(script)
	command.Stdout, command.Stderr = &out, &out
	err := command.Run()
	text, readErr := io.ReadAll(&out)
	return string(text), errors.Join(err, readErr)
}
