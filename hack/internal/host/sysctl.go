package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Sysctls remembers kernel parameters in a file, so that they can be put back.
type Sysctls struct {
	File string
}

// Save records the present values, unless some were recorded before: those are the machine's own.
func (s Sysctls) Save(names ...string) error {
	if _, err := os.Stat(s.File); err == nil {
		return nil
	}
	values := make(map[string]string, len(names))
	for _, name := range names {
		value, err := os.ReadFile(sysctlFile(name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // not in this kernel
		}
		if err != nil {
			return fmt.Errorf("read kernel parameter %s: %w", name, err)
		}
		values[name] = strings.TrimSpace(string(value))
	}
	data, err := json.MarshalIndent(values, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.File, data, 0o600); err != nil {
		return fmt.Errorf("record the kernel parameters: %w", err)
	}
	return nil
}

// Restore puts the recorded values back where they differ; without a record there is nothing to do.
func (s Sysctls) Restore() error {
	data, err := os.ReadFile(s.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var values map[string]string
	if err == nil {
		err = json.Unmarshal(data, &values)
	}
	if err != nil {
		return fmt.Errorf("read the recorded kernel parameters: %w", err)
	}
	for name, value := range values {
		if err := SetSysctl(name, value); err != nil {
			return err
		}
	}
	return nil
}

// SetSysctl sets a kernel parameter if it has another value.
func SetSysctl(name, value string) error {
	file := sysctlFile(name)
	if now, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(now)) == value { //nolint:gosec // the kernel's
		return nil
	}
	if err := os.WriteFile(file, []byte(value), 0o600); err != nil {
		return fmt.Errorf("set kernel parameter %s to %s: %w", name, value, err)
	}
	return nil
}

func sysctlFile(name string) string {
	return filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
}
