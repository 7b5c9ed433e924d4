package processkubelet

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// builds keeps each package's binary, so that a test binary builds it once.
var builds struct {
	sync.Mutex
	dir  string
	done map[string]string
}

// Build builds a processor of this module once, such as "github.com/dory-io/dory/examples/counter", and answers the path of
// the binary. It is the program as it is, but for where the SDK finds the token of its ServiceAccount: the path under /var/run
// belongs to the whole machine. Call RemoveBuilds at the end of TestMain.
func Build(pkg string) (string, error) {
	builds.Lock()
	defer builds.Unlock()
	if path, ok := builds.done[pkg]; ok {
		return path, nil
	}
	if builds.dir == "" {
		dir, err := os.MkdirTemp("", "dory-processkubelet-build-")
		if err != nil {
			return "", err
		}
		builds.dir, builds.done = dir, map[string]string{}
	}
	overlay, err := writeOverlay(builds.dir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(builds.dir, filepath.Base(pkg))
	if _, err := goCommand("build", "-overlay", overlay, "-o", path, pkg); err != nil {
		return "", err
	}
	builds.done[pkg] = path
	return path, nil
}

// RemoveBuilds deletes what Build has built.
func RemoveBuilds() {
	builds.Lock()
	defer builds.Unlock()
	if builds.dir != "" {
		_ = os.RemoveAll(builds.dir) // Of a temporary directory.
	}
	builds.dir, builds.done = "", nil
}

func goCommand(args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(context.Background(), "go", args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(stdout.String()), nil
}

// access is what takes the place of rest.InClusterConfig in the SDK.
const access = `package sdk

import (
	"net"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
)

func processConfig(func() (*rest.Config, error)) (*rest.Config, error) {
	dir := os.Getenv("` + serviceAccountVariable + `")
	return &rest.Config{
		Host:            "https://" + net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")),
		BearerTokenFile: filepath.Join(dir, "token"),
		TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "ca.crt")},
	}, nil
}
`

// writeOverlay makes the file for go build's -overlay.
func writeOverlay(dir string) (string, error) {
	module, err := goCommand("list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return "", err
	}
	original := filepath.Join(module, "sdk", "backend.go")
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	changed, err := relocate(string(text))
	if err != nil {
		return "", fmt.Errorf("%s: %w", original, err)
	}
	replace := map[string]string{}
	for path, content := range map[string]string{original: changed, filepath.Join(module, "sdk", "processkubelet.go"): access} {
		replace[path] = filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(replace[path], []byte(content), 0o600); err != nil {
			return "", err
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "overlay.json")
	return path, os.WriteFile(path, overlay, 0o600)
}

// relocate lets the SDK find its ServiceAccount's token where serviceAccountVariable says.
func relocate(source string) (string, error) {
	const call = "rest.InClusterConfig()"
	if strings.Count(source, call) != 1 {
		return "", fmt.Errorf("%s is not called once, as it was: look at this anew", call)
	}
	return strings.Replace(source, call, "processConfig(rest.InClusterConfig)", 1), nil
}
