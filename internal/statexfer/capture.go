package statexfer

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dory-io/dory/internal/message"
)

// The extension's headers: the position of a state, and the SHA-256 of its exact bytes.
const (
	HeaderEpoch    = "X-Dory-Epoch"
	HeaderSequence = "X-Dory-Sequence"
	HeaderChecksum = "X-Dory-Checksum"
	// HeaderDataLength is how many bytes the value of data has, which spares looking for its end.
	HeaderDataLength = "X-Dory-Data-Length"
	// HeaderSDKVersion is the version of a processor's SDK.
	HeaderSDKVersion = "X-Dory-SDK-Version"
)

// maxSummedBytes of an answer are read closely and summed even where its checksum is told, which finds processors that
// sum something else than they send. To do so with a large one takes longer than to move it, in the middle of a
// handoff, and proves nothing there that comparing the words of both processors does not; whoever else uses such
// a state reads it closely himself, in Canonical.
const maxSummedBytes = 1 << 20

// Capabilities are what a processor can do.
type Capabilities struct {
	// Handoff says that it can be moved while it works.
	Handoff bool
	// HandoffStatus says that it tells how far a handoff is.
	HandoffStatus bool
	// SDKVersion is empty where the processor does not tell it.
	SDKVersion string
	// Endpoints are all that it lists.
	Endpoints []string
}

// Capabilities asks a processor what it can do. A processor that answers, but lists nothing, can do nothing beyond the
// contract's common part, which is no error.
func (c *Client) Capabilities(ctx context.Context, of Endpoint) (Capabilities, error) {
	var found Capabilities
	err := c.exchange(ctx, of, call{method: http.MethodGet, path: "/", open: true, repeatable: true, read: func(r *http.Response) error {
		var err error
		found, err = readCapabilities(r)
		return err
	}})
	if errors.Is(err, ErrRefused) {
		return Capabilities{}, nil
	}
	return found, err
}

func readCapabilities(r *http.Response) (Capabilities, error) {
	text, err := io.ReadAll(io.LimitReader(r.Body, maxReplyBytes))
	if err != nil {
		return Capabilities{}, &brokenError{err}
	}
	var index struct {
		Endpoints []string `json:"endpoints"`
	}
	if json.Unmarshal(text, &index) != nil {
		index.Endpoints = nil
	}
	lists := func(path string) bool { return slices.Contains(index.Endpoints, path) }
	return Capabilities{
		Handoff:       lists(pathQuiesce) && lists(pathPromote) && lists(pathResume),
		HandoffStatus: lists(pathHandoff),
		SDKVersion:    r.Header.Get(HeaderSDKVersion),
		Endpoints:     index.Endpoints,
	}, nil
}

// Capture reads the state of a processor, which works on meanwhile.
func (c *Client) Capture(ctx context.Context, from Endpoint) (*State, error) {
	return c.capture(ctx, from, call{method: http.MethodGet, path: pathState, repeatable: true}, "")
}

// capture reads a state that is of the given epoch unless it says another; empty stands for none.
func (c *Client) capture(ctx context.Context, from Endpoint, call call, epoch string) (*State, error) {
	var state *State
	call.read = func(r *http.Response) error {
		var err error
		state, err = c.readState(r, epoch)
		return err
	}
	if err := c.exchange(ctx, from, call); err != nil {
		return nil, err
	}
	return state, nil
}

func (c *Client) readState(r *http.Response, epoch string) (*State, error) {
	if r.ContentLength > MaxStateBytes {
		return nil, fmt.Errorf("%w: an answer of %d bytes, the limit is %d", ErrTooLarge, r.ContentLength, MaxStateBytes)
	}
	told := strings.ToLower(r.Header.Get(HeaderChecksum))
	length := 0
	trusted := r.ContentLength > maxSummedBytes && isChecksum(told)
	if trusted {
		length = toldLength(r.Header)
	}
	members, err := scanState(r.Body, r.ContentLength, !trusted, length)
	if err != nil {
		return nil, err
	}
	members.checksum = cmp.Or(members.checksum, told)
	state, err := members.state()
	if err != nil {
		return nil, err
	}
	if state.CapturedAt.IsZero() {
		state.CapturedAt = c.clock.Now().UTC()
	}
	if err := state.takePosition(r.Header, members, epoch); err != nil {
		return nil, err
	}
	if told != "" && told != state.RawChecksum {
		return nil, fmt.Errorf("%w: %s says %s, the state that came has %s", ErrMismatch, HeaderChecksum, told, state.RawChecksum)
	}
	return state, nil
}

// toldLength is 0 where the processor does not tell it.
func toldLength(header http.Header) int {
	n, err := strconv.ParseUint(header.Get(HeaderDataLength), 10, 31)
	if err != nil || n < uint64(len("{}")) {
		return 0
	}
	return int(n)
}

func isChecksum(text string) bool {
	b, err := hex.DecodeString(text)
	return err == nil && len(b) == sha256.Size
}

// takePosition prefers the headers, with which no processor's own keys can be confused. A position that is told half or
// in another form is an error where it can only be meant as one.
func (s *State) takePosition(header http.Header, members stateMembers, epoch string) error {
	inHeader := header.Get(HeaderEpoch) != "" || header.Get(HeaderSequence) != ""
	epoch = cmp.Or(header.Get(HeaderEpoch), string(members.epoch), epoch)
	sequence := cmp.Or(header.Get(HeaderSequence), string(members.sequence))
	e, epochErr := strconv.ParseUint(epoch, 10, 63)
	n, sequenceErr := strconv.ParseUint(sequence, 10, 63)
	if epochErr == nil && sequenceErr == nil {
		s.Position, s.HasPosition = Position{int64(e), int64(n)}, true
		return nil
	}
	if inHeader {
		return fmt.Errorf("%w: its epoch %q and sequence %q must be whole numbers from 0 up", ErrNotState, epoch, sequence)
	}
	return nil
}

// state checks what every state must have.
func (m stateMembers) state() (*State, error) {
	if m.data == nil || m.stateVersion == nil {
		if said := lenient[string](m.problem); said != "" {
			return nil, fmt.Errorf("%w: the processor says %q", ErrNotState, message.Line(said, maxMessageBytes))
		}
		return nil, fmt.Errorf("%w: it lacks data or state_version", ErrNotState)
	}
	if m.data[0] != '{' {
		return nil, fmt.Errorf("%w: its data is no object but %s", ErrNotState, message.Line(string(m.data[:min(len(m.data), 2*maxMessageBytes)]), maxMessageBytes))
	}
	version := lenient[string](m.stateVersion)
	if version == "" {
		return nil, fmt.Errorf("%w: its state_version is %s", ErrNotState, message.Line(string(m.stateVersion), maxMessageBytes))
	}
	state := &State{
		Data: m.data, RawChecksum: m.checksum, PodName: lenient[string](m.podName), StateVersion: version,
		DataVersion: lenient[string](m.dataVersion),
		Uptime:      time.Duration(lenient[float64](m.uptime) * float64(time.Second)),
		Iterations:  iterationsIn(m.metrics),
	}
	if at, err := time.Parse(time.RFC3339Nano, lenient[string](m.capturedAt)); err == nil {
		state.CapturedAt = at.UTC()
	}
	return state, nil
}
