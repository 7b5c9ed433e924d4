package sdk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/dory-io/dory/internal/statexfer"
)

// The position of a state travels in headers, so that the body stays the contract's, byte for byte.
const (
	headerEpoch    = "X-Dory-Epoch"
	headerSequence = "X-Dory-Sequence"
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
	if now, reason := p.status(); now == phaseRestoring {
		writeError(w, http.StatusServiceUnavailable, reason)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), captureTimeout)
	defer cancel()
	doc, err := p.capture(ctx)
	if err != nil {
		writeError(w, statusOf(err, http.StatusInternalServerError), err.Error())
		return
	}
	w.Header().Set(headerEpoch, strconv.FormatInt(doc.Metadata.Epoch, 10))
	w.Header().Set(headerSequence, strconv.FormatInt(doc.Metadata.Sequence, 10))
	writeState(w, p.applicationState(doc))
}

// writeState puts the state into the answer as it is: encoding/json would read and copy all of it once more.
func writeState(w http.ResponseWriter, state statexfer.ApplicationState) {
	data := state.Data
	state.Data = nil
	text, err := json.Marshal(state)
	before, after, ok := bytes.Cut(text, []byte(`"data":null`))
	if err != nil || !ok {
		writeError(w, http.StatusInternalServerError, "the state cannot be written as JSON")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	for _, part := range [][]byte{before, []byte(`"data":`), data, after} {
		if _, err := w.Write(part); err != nil {
			return // The client is gone, and nobody is left to tell.
		}
	}
}

func (p *Processor) applicationState(doc Document) statexfer.ApplicationState {
	state := statexfer.ApplicationState{
		PodName:       p.env.podName,
		AppName:       p.env.appName,
		CapturedAt:    statexfer.FormatTime(doc.Metadata.Time),
		StateVersion:  statexfer.StateVersion,
		Data:          doc.Payload,
		Metrics:       map[string]json.RawMessage{},
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

// postState replaces the state of the running processor. Before it runs, the saved state would overwrite what was
// posted; after it was asked to stop, nobody would save it.
func (p *Processor) postState(w http.ResponseWriter, r *http.Request) {
	if now, reason := p.status(); now != phaseRunning {
		writeError(w, http.StatusServiceUnavailable, reason)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, statexfer.MaxStateBytes))
	if err != nil {
		writeError(w, statusOf(err, http.StatusBadRequest), fmt.Sprintf("reading the state: %v", err))
		return
	}
	data, sequence, err := parseState(body, r.Header.Get(headerSequence))
	if err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), captureTimeout)
		defer cancel()
		err = p.accept(ctx, data, sequence)
	}
	if err != nil {
		writeError(w, statusOf(err, http.StatusBadRequest), err.Error())
		return
	}
	writeJSON(w, http.StatusOK, statusBody{Status: "ok", Message: "State restored"})
}

// parseState finds the state in a body: the value of data if there is one, else the whole.
func parseState(body []byte, sequenceHeader string) (data json.RawMessage, sequence int64, err error) {
	var keys map[string]json.RawMessage
	if err := json.Unmarshal(body, &keys); err != nil {
		return nil, 0, fmt.Errorf("the state is no JSON object: %w", err)
	}
	text := sequenceHeader
	data, wrapped := keys["data"]
	if !wrapped {
		data = body
	} else if text == "" {
		text = string(keys["sequence"])
	}
	if text == "" {
		return data, 0, nil
	}
	sequence, err = strconv.ParseInt(text, 10, 64)
	if err != nil || sequence < 0 {
		return nil, 0, fmt.Errorf("sequence %q is no whole number from 0 up", text)
	}
	return data, sequence, nil
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
