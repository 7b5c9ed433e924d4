package sdk

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
)

// ErrStateVersion says that a state is of another version than the processor's, see WithStateVersion.
var ErrStateVersion = errors.New("the state is of another version")

// versionPattern keeps versions fit for a header.
var versionPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,62}$`)

// WithStateVersion names the version of the format of the processor's own state, at most 63 letters, digits, dots, dashes,
// pluses and underscores. Whatever writes the state writes the version beside it. A state of another version, older or
// newer, is given to migrate, which returns the same state as this version has it; from is "" for a state without a
// version. Where migrate is nil or fails, the state is refused: the processor does not start, or the handoff is rolled
// back. migrate must not have effects: it may be called more than once for the same state. Default: no version, and a
// state that has one is refused.
func WithStateVersion(version string, migrate func(from string, data json.RawMessage) (json.RawMessage, error)) Option {
	return func(s *settings) { s.stateVersion, s.hasStateVersion, s.migrate = version, true, migrate }
}

func (s *settings) validateVersion() error {
	if s.hasStateVersion && !versionPattern.MatchString(s.stateVersion) {
		return fmt.Errorf("WithStateVersion: %q is no version: it must match %s", s.stateVersion, versionPattern)
	}
	return nil
}

// upgrade is data as this version of the processor has it.
func (s *settings) upgrade(from string, data json.RawMessage) (_ json.RawMessage, err error) {
	if s.migrate == nil {
		return nil, fmt.Errorf("%w: it is %q, this processor's is %q, and it has no function to migrate it (WithStateVersion)",
			ErrStateVersion, from, s.stateVersion)
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: migrating it from %q to %q panicked: %v", ErrStateVersion, from, s.stateVersion, r)
		}
	}()
	migrated, err := s.migrate(from, data)
	if err != nil {
		return nil, fmt.Errorf("%w: migrating it from %q to %q: %w", ErrStateVersion, from, s.stateVersion, err)
	}
	return migrated, nil
}
