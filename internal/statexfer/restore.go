package statexfer

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// Restored is what a processor says of a state that it took.
type Restored struct {
	// Checksum is the hexadecimal SHA-256 of the state as the processor writes it, or empty where its SDK tells none.
	Checksum string
	// Migrated says that the processor made another version of the state out of what it got.
	Migrated bool
	// Received is the hexadecimal SHA-256 of what a processor got that migrated it.
	Received string
}

// Restore gives a state to a processor, which must be ready, because before that it would overwrite it. A state with
// a position may be sent more than once until it is answered: the processor keeps the newest. One without is sent again
// only where the processor took no notice of it for certain.
func (c *Client) Restore(ctx context.Context, to Endpoint, state *State) (*Restored, error) {
	if len(state.Data) == 0 {
		return nil, fmt.Errorf("POST %s%s: %w: there is nothing to restore", to.URL, pathState, ErrNotState)
	}
	var restored *Restored
	post := call{
		method: http.MethodPost, path: pathState, repeatable: state.HasPosition, epoch: state.Position.Epoch,
		body: [][]byte{[]byte(`{"data":`), state.Data, []byte(state.otherMembers() + "}")},
		read: func(r *http.Response) error {
			var err error
			restored, err = readRestored(r)
			return err
		},
	}
	if err := c.exchange(ctx, to, post); err != nil {
		return nil, err
	}
	return restored, nil
}

// otherMembers follow data in the body.
func (s *State) otherMembers() string {
	var members string
	if s.HasPosition {
		members = fmt.Sprintf(`,"epoch":%d,"sequence":%d`, s.Position.Epoch, s.Position.Sequence)
	}
	if s.DataVersion != "" {
		text, _ := json.Marshal(s.DataVersion) //nolint:errcheck,errchkjson // A string can always be written.
		members += `,"data_version":` + string(text)
	}
	return members
}

func readRestored(r *http.Response) (*Restored, error) {
	reply, err := readOK(r)
	if err != nil {
		return nil, err
	}
	if reply.Status != "ok" {
		return nil, reply.refusal(r.StatusCode)
	}
	if header := r.Header.Get(HeaderChecksum); header != "" {
		reply.Checksum = header
	}
	return &Restored{Checksum: reply.Checksum, Migrated: reply.Migrated, Received: reply.Received}, nil
}

// Verify makes sure that a processor holds a state after Restore. What the processor answered to Restore is enough where
// it tells the checksum of the same bytes; otherwise its state is read back, and the canonical forms are compared.
// A processor that works on meanwhile no longer holds that state.
func (c *Client) Verify(ctx context.Context, of Endpoint, state *State, restored *Restored) error {
	if restored.proves(state) {
		return nil
	}
	held, err := c.Capture(ctx, of)
	if err != nil {
		return fmt.Errorf("reading the restored state back: %w", err)
	}
	if held.RawChecksum == state.RawChecksum {
		return nil
	}
	want, err := state.Checksum()
	if err != nil {
		return fmt.Errorf("%w, as far as can be told: the state to restore: %w", ErrMismatch, err)
	}
	got, err := held.Checksum()
	if err != nil {
		return fmt.Errorf("%w, as far as can be told: the restored state: %w", ErrMismatch, err)
	}
	if got != want {
		return fmt.Errorf("%w: %s should hold %s (%d bytes) and holds %s (%d bytes)", ErrMismatch, of.URL, want, len(state.Data), got, len(held.Data))
	}
	return nil
}

func (r *Restored) proves(state *State) bool {
	if r == nil || state.RawChecksum == "" {
		return false
	}
	return strings.EqualFold(r.Checksum, state.RawChecksum) || (r.Migrated && strings.EqualFold(r.Received, state.RawChecksum))
}
