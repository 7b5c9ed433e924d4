package sdk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/dory-io/dory/internal/statexfer"
)

// The position of a state travels in headers, so that the body stays the contract's, byte for byte.
const (
	headerEpoch    = "X-Dory-Epoch"
	headerSequence = "X-Dory-Sequence"
	// headerChecksum is the SHA-256 of the exact bytes of data in the body.
	headerChecksum = "X-Dory-Checksum"
	// headerDataVersion is the version that WithStateVersion gives.
	headerDataVersion = "X-Dory-Data-Version"
	// headerMigrated is "true" where a state was taken in another version than it came in.
	headerMigrated = "X-Dory-Migrated"
)

// authorized lets those pass who know DORY_STATE_TOKEN, or everybody where there is none.
func (p *Processor) authorized(next http.Handler) http.Handler {
	if p.env.token == "" {
		return next
	}
	// Comparing hashes takes the same time whatever is sent, also for another length.
	want := sha256.Sum256([]byte("Bearer " + p.env.token))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := sha256.Sum256([]byte(r.Header.Get("Authorization")))
		if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			writeError(w, http.StatusUnauthorized, http.StatusText(http.StatusUnauthorized))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (p *Processor) getState(w http.ResponseWriter, r *http.Request) {
	if err := p.standing().refuseRead(); err != nil {
		writeError(w, statusOf(err, http.StatusInternalServerError), err.Error())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), captureTimeout)
	defer cancel()
	state, err := p.capture(ctx)
	if err != nil {
		writeError(w, statusOf(err, http.StatusInternalServerError), err.Error())
		return
	}
	p.writeState(w, state, nil)
}

// stateBody is the answer of GET /state, and of a quiesced instance, which also tells the position in the body.
type stateBody struct {
	statexfer.ApplicationState

	DataVersion string `json:"data_version,omitempty"`
	Epoch       *int64 `json:"epoch,omitempty"`
	Sequence    *int64 `json:"sequence,omitempty"`
}

// writeState puts the state into the answer as it is: encoding/json would read and copy all of it once more.
func (p *Processor) writeState(w http.ResponseWriter, state *captured, at *Position) {
	body := stateBody{ApplicationState: p.applicationState(state), DataVersion: state.meta.DataVersion}
	if at != nil {
		body.Epoch, body.Sequence = &at.Epoch, &at.Sequence
	}
	text, err := json.Marshal(body)
	before, after, ok := bytes.Cut(text, []byte(`"data":null`))
	if err != nil || !ok {
		writeError(w, http.StatusInternalServerError, "the state cannot be written as JSON")
		return
	}
	before = append(slices.Clip(before), `"data":`...)
	header := w.Header()
	tellPosition(header, state.meta.Position)
	header.Set(headerChecksum, state.checksum())
	header.Set(statexfer.HeaderDataLength, strconv.Itoa(state.text.size))
	if state.meta.DataVersion != "" {
		header.Set(headerDataVersion, state.meta.DataVersion)
	}
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(before)+state.text.size+len(after)))
	all := stateText{parts: slices.Concat([][]byte{before}, state.text.parts, [][]byte{after})}
	all.writeTo(w) //nolint:errcheck // The client is gone, and nobody is left to tell.
}

func tellPosition(header http.Header, at Position) {
	header.Set(headerEpoch, strconv.FormatInt(at.Epoch, 10))
	header.Set(headerSequence, strconv.FormatInt(at.Sequence, 10))
}

func (p *Processor) applicationState(captured *captured) statexfer.ApplicationState {
	state := statexfer.ApplicationState{
		PodName:       p.env.podName,
		AppName:       p.env.appName,
		CapturedAt:    statexfer.FormatTime(captured.meta.Time),
		StateVersion:  statexfer.StateVersion,
		Metrics:       p.iterations().Metrics(),
		Connections:   []json.RawMessage{},
		SessionData:   map[string]json.RawMessage{},
		UptimeSeconds: time.Since(p.started).Seconds(),
		RequestCount:  p.requests.Load(),
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.lastHealth.IsZero() {
		last := statexfer.FormatTime(p.lastHealth)
		state.LastHealthTime = &last
	}
	return state
}

// restoredBody is the answer of POST /state. Whoever gave a state away compares a checksum instead of reading it back.
type restoredBody struct {
	Status  string `json:"status"`
	Message string `json:"message"`
	// Checksum of the state as this processor writes it now.
	Checksum string `json:"checksum"`
	Epoch    int64  `json:"epoch"`
	Sequence int64  `json:"sequence"`
	Migrated bool   `json:"migrated,omitempty"`
	// Received is the checksum of what came, told where it was migrated to another version.
	Received string `json:"received,omitempty"`
}

// postState replaces the state of the running processor. Before it runs, the saved state would overwrite what was
// posted; after it was asked to stop, nobody would save it.
func (p *Processor) postState(w http.ResponseWriter, r *http.Request) {
	if err := p.standing().refuseUnlessRunning(); err != nil {
		writeRefusal(w, err)
		return
	}
	body, err := readBody(w, r)
	if err != nil {
		writeError(w, statusOf(err, http.StatusBadRequest), fmt.Sprintf("reading the state: %v", err))
		return
	}
	posted, err := parsePosted(body, r.Header, p.vars.known)
	if err != nil {
		writeError(w, http.StatusBadRequest, err.Error())
		return
	}
	received := newCaptured(oneText(posted.data), statexfer.Metadata{})
	go received.checksum() // While the values are decoded.
	ctx, cancel := context.WithTimeout(r.Context(), captureTimeout)
	defer cancel()
	restored, migrated, err := p.accept(ctx, posted)
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		writeRefusal(w, err)
		return
	case err != nil:
		writeError(w, statusOf(err, http.StatusBadRequest), err.Error())
		return
	}
	writeRestored(w, restored, received, migrated)
}

func writeRestored(w http.ResponseWriter, restored, received *captured, migrated bool) {
	at := restored.meta.Position
	answer := restoredBody{Status: "ok", Message: "State restored", Epoch: at.Epoch, Sequence: at.Sequence, Migrated: migrated}
	if restored.text.equals(received.text.parts[0]) {
		answer.Checksum = received.checksum()
	} else {
		answer.Checksum = restored.checksum()
	}
	tellPosition(w.Header(), at)
	w.Header().Set(headerChecksum, answer.Checksum)
	if migrated {
		answer.Received = received.checksum()
		w.Header().Set(headerMigrated, "true")
	}
	writeJSON(w, http.StatusOK, answer)
}

func statusOf(err error, otherwise int) int {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	case errors.Is(err, errUnavailable):
		return http.StatusServiceUnavailable
	}
	return otherwise
}
