package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// role says whether an instance acts.
type role string

const (
	// rolePrimary runs iterations and saves its state.
	rolePrimary role = "primary"
	// roleStandby holds a copy of another's state, and does neither.
	roleStandby role = "standby"
	// roleQuiesced was the PRIMARY and has handed out its last state.
	roleQuiesced role = "quiesced"
)

// roleRecord is what the role file holds. It outlives a container, but not its pod.
type roleRecord struct {
	Role  role  `json:"role"`
	Epoch int64 `json:"epoch"`
}

// readRole is the record in a role file, or nil where none was written yet.
func readRole(path string) (*roleRecord, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // No file is no record.
	}
	text, err := os.ReadFile(path) //nolint:gosec // The operator chose the path.
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // See above.
	}
	if err != nil {
		return nil, fmt.Errorf("reading DORY_ROLE_FILE, without which it is not known whether this instance may act: %w", err)
	}
	var record roleRecord
	if err := json.Unmarshal(text, &record); err != nil {
		return nil, fmt.Errorf("DORY_ROLE_FILE %s holds %.100q, which is no role: %w", path, text, err)
	}
	switch record.Role {
	case rolePrimary, roleStandby, roleQuiesced:
	default:
		return nil, fmt.Errorf("DORY_ROLE_FILE %s holds the role %q, not primary, standby or quiesced", path, record.Role)
	}
	if record.Epoch < 0 {
		return nil, fmt.Errorf("DORY_ROLE_FILE %s holds epoch %d, not a whole number from 0 up", path, record.Epoch)
	}
	return &record, nil
}

// writeRole returns only when the record is durable.
func writeRole(path string, record roleRecord) error {
	if path == "" {
		return nil
	}
	text, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("writing the role: %w", err)
	}
	if err := replaceFile(filepath.Dir(path), path, text); err != nil {
		return fmt.Errorf("DORY_ROLE_FILE: %w", err)
	}
	return nil
}

// takeRole lets the role file override the environment: it knows what became of the instance after its pod was made.
func (env *environment) takeRole(record *roleRecord) {
	if record == nil {
		return
	}
	env.role, env.epoch, env.hasEpoch = record.Role, record.Epoch, record.Role != roleStandby
}

// whyBarred is about a pod that was copied from the operator's: by kubectl debug --copy-to, from an exported manifest, from a
// backup. A copy has the environment of the original, but its own name, and mostly no label with an epoch. A pod of another
// operator has neither variable, and may act. Empty: so may this one.
func (env *environment) whyBarred() string {
	const rest = ": it serves HTTP, and neither acts nor saves anything"
	if self := env.podNamespace + "/" + env.podName; env.instance != "" && env.instance != self {
		return fmt.Sprintf("this pod is %s, a copy of %s, and only the original may act%s", self, env.instance, rest)
	}
	if env.knowsEpochs && env.role == rolePrimary && !env.hasEpoch && !env.migrating {
		return "this pod was given no epoch: its label dory.io/epoch is not there, as on a copy of a processor's pod" + rest
	}
	return ""
}
