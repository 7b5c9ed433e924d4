package docs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// In place of the programs that the documents call, the tests put links to the test's own binary, which tell by this
// variable which one they stand for. Each checks what can be checked without kubelets and hands the rest to the real program.
const shimVariable = "DORY_DOCS_SHIM"

// What a shim must know, in its environment.
const (
	variableRoot       = "DORY_DOCS_ROOT"
	variableKubectl    = "DORY_DOCS_KUBECTL"
	variableKubeconfig = "DORY_DOCS_KUBECONFIG"
	variableDatabase   = "DORY_DOCS_DATABASE"
	variableCalls      = "DORY_DOCS_CALLS"
	variablePath       = "DORY_DOCS_PATH"
)

// shims are the programs that they stand for.
var shims = map[string]func(args []string) error{
	"kubectl": shimKubectl,
	"psql":    shimPsql,
	"make":    shimMake,
	"go":      shimGo,
	"docker":  shimDocker,
	"cluster": shimCluster,
	"image":   shimImage,
	"zstd":    shimNothing,
}

func shim(name string, args []string) int {
	os.Setenv("PATH", os.Getenv(variablePath))
	err := errors.Join(shims[name](args), countCall(name))
	if err == nil {
		return 0
	}
	fmt.Fprintf(os.Stderr, "test of the documents, %s %s: %v\n", name, strings.Join(args, " "), err)
	return 1
}

// countCall leaves a trace, so that a block of which nothing was tried is seen.
func countCall(name string) error {
	f, err := os.OpenFile(os.Getenv(variableCalls), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, name)
	return errors.Join(err, f.Close())
}

func shimNothing([]string) error {
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// placeholders are the words for which a person puts a name.
var placeholders = regexp.MustCompile(`\b(NAME|NODE|POD|NAMESPACE|ID)\b`)

// Where nothing but a kubelet or the operator could answer, that the command is well-formed is all that is checked.
var needKubelets = []string{"logs", "exec", "port-forward", "rollout", "cp", "attach", "top", "events", "debug"}

// What changes things is asked for only, but for what later commands of the same document build upon.
var (
	reallyDone = []string{"create", "apply", "patch", "annotate", "label", "get", "describe", "explain", "kustomize", "version", "auth", "api-resources"}
	dryRun     = []string{"delete", "taint", "drain", "cordon", "uncordon", "replace", "set", "scale"}
)

func shimKubectl(args []string) error {
	args = slices.Clone(args)
	for i := range args {
		args[i] = placeholders.ReplaceAllStringFunc(args[i], strings.ToLower)
	}
	verb, whole := verbOf(args)
	if err := wellFormed(args); err != nil {
		return err
	}
	switch {
	case !whole, slices.Contains(needKubelets, verb):
		return nil
	case slices.Contains(args, "--dry-run=server"), slices.Contains(reallyDone, verb):
		return realKubectl(verb, withoutWatch(args))
	case slices.Contains(dryRun, verb):
		return realKubectl(verb, append(args, "--dry-run=server"))
	case verb == "edit":
		args[slices.Index(args, "edit")] = "get" // Which is what it opens an editor on.
		return realKubectl("get", args)
	case verb == "wait":
		return realKubectl(verb, append(args, "--timeout=10ms"))
	}
	return fmt.Errorf("these tests do not know what to do with kubectl %s", verb)
}

// verbOf is the first word that is no option, and whether there is enough beside it to be a command rather than the name of one.
func verbOf(args []string) (verb string, whole bool) {
	withValue := []string{"-n", "--namespace", "--context", "--kubeconfig", "-o"}
	selects := []string{"-f", "-k", "-l", "--all", "--filename", "--selector"}
	operands := 0
	for i := 0; i < len(args); i++ {
		switch {
		case slices.Contains(selects, args[i]):
			whole = true
		case slices.Contains(withValue, args[i]):
			i++
		case strings.HasPrefix(args[i], "-"):
		case verb == "":
			verb = args[i]
		default:
			operands++
			whole = whole || operands > 1 || verb != "delete" || strings.Contains(args[i], "/")
		}
	}
	return verb, verb != "" && (whole || verb == "version" || verb == "api-resources")
}

// wellFormed lets kubectl parse its options, and do nothing.
func wellFormed(args []string) error {
	args = slices.Clone(args)
	if i := slices.Index(args, "--"); i >= 0 {
		args = args[:i]
	}
	out, err := exec.CommandContext(context.Background(), os.Getenv(variableKubectl), append(args, "--help")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func withoutWatch(args []string) []string {
	return slices.DeleteFunc(args, func(arg string) bool { return arg == "-w" || arg == "--watch" })
}

// realKubectl forgives what only a second run or the missing operator is to blame for.
func realKubectl(verb string, args []string) error {
	var stdout, stderr strings.Builder
	command := exec.CommandContext(context.Background(), os.Getenv(variableKubectl), append(args, "--kubeconfig", os.Getenv(variableKubeconfig))...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, &stdout, &stderr
	err := command.Run()
	_, _ = io.WriteString(os.Stdout, stdout.String())
	switch {
	case verb == "create" && (strings.Contains(stderr.String(), "AlreadyExists") || strings.Contains(stderr.String(), "already exists")):
		return nil // By another document, in the same world.
	case strings.Contains(stderr.String(), "no objects passed"):
		return nil // A selector that finds nothing here.
	case verb == "wait" && strings.Contains(stderr.String(), "timed out"):
		return nil
	case err != nil:
		return fmt.Errorf("%w\n%s", err, stderr.String())
	case verb == "get" && stdout.Len() == 0 && strings.Contains(strings.Join(args, " "), "jsonpath"):
		fmt.Println("node") // What the operator would have written.
	}
	return nil
}

// shimPsql takes the database of the test in place of the one that is named.
func shimPsql(args []string) error {
	program, err := exec.LookPath("psql")
	if err != nil {
		return err
	}
	given := slices.Clone(args)
	for i, arg := range given {
		if strings.HasPrefix(arg, "postgres://") || strings.HasPrefix(arg, "postgresql://") {
			given[i] = os.Getenv(variableDatabase)
		}
	}
	if !slices.Contains(given, os.Getenv(variableDatabase)) {
		return fmt.Errorf("no URL of a database among %q", args)
	}
	command := exec.CommandContext(context.Background(), program, append([]string{"-X", "-v", "ON_ERROR_STOP=1"}, given...)...)
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command.Run()
}

// shimMake asks make what it would do.
func shimMake(args []string) error {
	program, err := exec.LookPath("make")
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(context.Background(), program, append([]string{"--dry-run", "-C", os.Getenv(variableRoot)}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func shimGo(args []string) error {
	known := []string{"run", "mod", "get", "build", "tool", "test", "vet", "env", "install"}
	if len(args) == 0 || !slices.Contains(known, args[0]) {
		return errors.New("no such command of go")
	}
	switch output := slices.Index(args, "-o") + 1; {
	case args[0] == "run":
		time.Sleep(time.Minute) // Until it is ended: the program that is meant does not end by itself.
	case args[0] == "build" && output > 0 && output < len(args):
		return os.WriteFile(args[output], []byte("#!/bin/sh\nexec sleep 60\n"), 0o700)
	}
	return nil
}

func shimDocker(args []string) error {
	if len(args) == 0 || !slices.Contains([]string{"build", "push", "tag"}, args[0]) {
		return errors.New("no such command of docker")
	}
	return nil
}

// shimCluster knows the local cluster by the text of its help.
func shimCluster(args []string) error {
	help, err := os.ReadFile(filepath.Join(os.Getenv(variableRoot), "hack", "cluster", "main.go"))
	if err != nil {
		return err
	}
	if len(args) == 0 || !regexp.MustCompile(`\n  `+regexp.QuoteMeta(args[0])+`\b`).Match(help) {
		return errors.New("no such command: see bin/cluster --help")
	}
	switch args[0] {
	case "database-url":
		fmt.Println(os.Getenv(variableDatabase))
	case "kubeconfig":
		fmt.Println(os.Getenv(variableKubeconfig))
	}
	return nil
}

// shimImage knows the flags of the image builder from where they are made.
func shimImage(args []string) error {
	source, err := os.ReadFile(filepath.Join(os.Getenv(variableRoot), "hack", "image", "main.go"))
	if err != nil {
		return err
	}
	for _, arg := range args {
		name, isFlag := strings.CutPrefix(arg, "-")
		if isFlag && !strings.Contains(string(source), `"`+strings.TrimLeft(name, "-")+`"`) {
			return fmt.Errorf("no such flag: %s", arg)
		}
	}
	return nil
}
