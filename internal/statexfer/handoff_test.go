package statexfer

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCapabilities(t *testing.T) {
	const old = `{"service":"dory-processor","endpoints":["/","/health","/state"]}`
	const live = `{"service":"dory-processor","endpoints":["/","/state","/handoff","/handoff/quiesce","/handoff/promote","/handoff/resume"]}`
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    Capabilities
	}{
		"another SDK":        {answer(200, old), Capabilities{Endpoints: []string{"/", "/health", "/state"}}},
		"the whole handoff":  {answer(200, live, "X-Dory-SDK-Version: 3.1"), Capabilities{Handoff: true, HandoffStatus: true, SDKVersion: "3.1", Endpoints: []string{"/", "/state", "/handoff", "/handoff/quiesce", "/handoff/promote", "/handoff/resume"}}},
		"half a handoff":     {answer(200, `{"endpoints":["/handoff/quiesce","/handoff/promote"]}`), Capabilities{Endpoints: []string{"/handoff/quiesce", "/handoff/promote"}}},
		"no list":            {answer(200, `{"service":"dory-processor"}`), Capabilities{}},
		"list of other":      {answer(200, `{"endpoints":[{"path":"/handoff"}]}`), Capabilities{}},
		"HTML":               {answer(200, `<html>`), Capabilities{}},
		"no such page":       {answer(404, `<html>`), Capabilities{}},
		"after some failure": {sequence(answer(500, ""), answer(200, old)), Capabilities{Endpoints: []string{"/", "/health", "/state"}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, test.handler)
			got, err := newTestClient(t, p).Capabilities(t.Context(), p.Endpoint)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			request := p.got()[0]
			if request.method != http.MethodGet || request.path != "/" || request.header.Get("Authorization") != "" {
				t.Errorf("got %+v", request)
			}
		})
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    error
	}{
		"not there": {answer(503, ""), ErrUnavailable},
		"truncated": {cut("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), ErrUnavailable},
		"401":       {answer(401, ""), ErrUnauthorized},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, test.handler)
			if _, err := newTestClient(t, p).Capabilities(t.Context(), p.Endpoint); !errors.Is(err, test.want) {
				t.Error(err)
			}
		})
	}
}

// sequence answers with one handler after the other.
func sequence(handlers ...http.HandlerFunc) http.HandlerFunc {
	var next atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) { handlers[next.Add(1)-1](w, r) }
}

func TestStatus(t *testing.T) {
	p := newProcessor(t, answer(200, `{"role":"standby","epoch":7,"sequence":42,"instance":"i-1"}`))
	got, err := newTestClient(t, p).Status(t.Context(), p.Endpoint)
	if err != nil || got != (HandoffStatus{Role: "standby", Epoch: 7, Sequence: 42, Instance: "i-1"}) {
		t.Errorf("%+v, %v", got, err)
	}
	if request := p.got()[0]; request.method != http.MethodGet || request.path != "/handoff" || request.header.Get("Authorization") != "Bearer "+token {
		t.Errorf("got %+v", request)
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    error
	}{
		"no role":       {answer(200, `{}`), ErrRefused},
		"nothing":       {answer(200, ``), ErrRefused},
		"another shape": {answer(200, `{"role":"standby","epoch":"7"}`), ErrRefused},
		"404":           {answer(404, ``), ErrRefused},
		"401":           {answer(401, ``), ErrUnauthorized},
		"truncated":     {cut("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, test.handler)
			if got, err := newTestClient(t, p).Status(t.Context(), p.Endpoint); !errors.Is(err, test.want) || got != (HandoffStatus{}) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

func TestQuiesce(t *testing.T) {
	body := stateBody(`{"a":1}`)
	with := func(more string) string { return body[:len(body)-1] + more + "}" }
	for name, handler := range map[string]http.HandlerFunc{
		"position in headers":          answer(200, with(`,"sequence":42,"epoch":7`), "X-Dory-Epoch: 7", "X-Dory-Sequence: 42"),
		"position in the body":         answer(200, with(`,"sequence":42,"epoch":7`)),
		"no more than the contract":    answer(200, with(`,"sequence":42`)),
		"not ready, then":              sequence(answer(503, `{"error":"restoring"}`), answer(200, with(`,"sequence":42`))),
		"the answer was lost, so anew": sequence(cut(""), answer(200, with(`,"sequence":42`))),
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, handler)
			state, err := newTestClient(t, p).Quiesce(t.Context(), p.Endpoint, 7)
			if err != nil {
				t.Fatal(err)
			}
			if string(state.Data) != `{"a":1}` || state.Position != (Position{7, 42}) || !state.HasPosition {
				t.Errorf("%+v", state)
			}
			for _, request := range p.got() {
				if request.method != http.MethodPost || request.path != "/handoff/quiesce" || request.body != `{"epoch":7}` ||
					request.header.Get("Authorization") != "Bearer "+token {
					t.Errorf("got %+v", request)
				}
			}
		})
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    error
		says    string
	}{
		"no sequence":       {answer(200, body), ErrNotState, "must tell its sequence"},
		"sequence is null":  {answer(200, with(`,"sequence":null`)), ErrNotState, "must tell its sequence"},
		"another epoch":     {answer(200, with(`,"sequence":1,"epoch":6`)), ErrNotState, "this one tells epoch 6 sequence 1"},
		"200 with an error": {answer(200, `{"error":"get_state raised"}`), ErrNotState, "get_state raised"},
		"older epoch":       {answer(409, `{"error":"not mine","role":"primary","epoch":6}`), ErrRefused, "it is primary at epoch 6"},
		"higher epoch":      {answer(409, `{"error":"not mine","role":"primary","epoch":8}`), ErrSuperseded, "it is primary at epoch 8"},
		"11 MB":             {answer(200, strings.Repeat(" ", 11_000_000)), ErrTooLarge, "11000000"},
		"401":               {answer(401, ``), ErrUnauthorized, ""},
		"stopping":          {answer(503, `{"error":"stopping"}`), ErrUnavailable, "stopping"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, test.handler)
			state, err := newTestClient(t, p).Quiesce(t.Context(), p.Endpoint, 7)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || state != nil {
				t.Errorf("got %v, want %v that says %q", err, test.want, test.says)
			}
			if errors.Is(err, ErrSuperseded) != errors.Is(test.want, ErrSuperseded) {
				t.Errorf("superseded: %v", err)
			}
		})
	}
}

// A processor that cannot finish its iteration notices that the caller has gone, and works on.
func TestQuiesceGivesUp(t *testing.T) {
	gone := make(chan struct{}, 2*maxTries)
	p := newProcessor(t, nil)
	p.handlers[0] = func(w http.ResponseWriter, r *http.Request) {
		p.hang(w, r)
		gone <- struct{}{}
	}
	_, err := newTestClient(t, p).Quiesce(t.Context(), p.Endpoint, 7)
	if !errors.Is(err, ErrUnavailable) {
		t.Error(err)
	}
	for range maxTries {
		<-gone
	}
}

func TestPromoteAndResume(t *testing.T) {
	promote := (*Client).Promote
	resume := (*Client).Resume
	for name, test := range map[string]struct {
		do      func(*Client, context.Context, Endpoint, int64) error
		path    string
		handler http.HandlerFunc
		want    error
	}{
		"promote":                            {promote, "/handoff/promote", answer(200, `{"role":"primary","epoch":8}`), nil},
		"promote, nothing said":              {promote, "/handoff/promote", answer(200, ``), nil},
		"promote, done before":               {promote, "/handoff/promote", answer(409, `{"error":"seen","role":"primary","epoch":8,"sequence":3}`), nil},
		"promote, the answer was lost":       {promote, "/handoff/promote", sequence(cut(""), answer(409, `{"role":"primary","epoch":8}`)), nil},
		"promote, seen but not promoted":     {promote, "/handoff/promote", answer(409, `{"role":"standby","epoch":8}`), ErrRefused},
		"promote, primary under another":     {promote, "/handoff/promote", answer(409, `{"role":"primary","epoch":9}`), ErrSuperseded},
		"promote, no role":                   {promote, "/handoff/promote", answer(409, `{"epoch":8}`), ErrRefused},
		"promote, another refusal":           {promote, "/handoff/promote", answer(400, `{"role":"primary","epoch":8}`), ErrRefused},
		"promote, 200 with an error":         {promote, "/handoff/promote", answer(200, `{"error":"no"}`), ErrRefused},
		"promote, HTML":                      {promote, "/handoff/promote", answer(200, `<html>`), ErrRefused},
		"promote, wrong token":               {promote, "/handoff/promote", answer(401, ``), ErrUnauthorized},
		"promote, away":                      {promote, "/handoff/promote", answer(500, ``), ErrUnavailable},
		"resume":                             {resume, "/handoff/resume", answer(200, `{"role":"primary","epoch":8}`), nil},
		"resume, higher epoch":               {resume, "/handoff/resume", answer(409, `{"role":"quiesced","epoch":9}`), ErrSuperseded},
		"resume, refused for another reason": {resume, "/handoff/resume", answer(409, `{"role":"primary","epoch":8}`), ErrRefused},
		"resume, no such thing":              {resume, "/handoff/resume", answer(404, ``), ErrRefused},
		"resume, truncated":                  {resume, "/handoff/resume", cut("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, test.handler)
			err := test.do(newTestClient(t, p), t.Context(), p.Endpoint, 8)
			if !errors.Is(err, test.want) || errors.Is(err, ErrSuperseded) != errors.Is(test.want, ErrSuperseded) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			for _, request := range p.got() {
				if request.method != http.MethodPost || request.path != test.path || request.body != `{"epoch":8}` {
					t.Errorf("got %+v", request)
				}
			}
		})
	}
}

// A handoff's requests all go through one connection, whatever is answered between.
func TestConnectionIsKept(t *testing.T) {
	body := stateBody(`{"a":"` + strings.Repeat("x", 2<<20) + `"}`)
	p := newProcessor(t, answer(200, body), answer(500, `{"error":"boom"}`), answer(200, body), answer(200, restoredOK),
		answer(409, `{"error":"older"}`), answer(404, strings.Repeat("x", maxReplyBytes-1)), chunked(body), answer(200, ""))
	c := newTestClient(t, p)
	for range 2 {
		if _, err := c.Capture(t.Context(), p.Endpoint); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Restore(t.Context(), p.Endpoint, stateOf(`{}`)); err != nil {
		t.Error(err)
	}
	if _, err := c.Restore(t.Context(), p.Endpoint, stateOf(`{}`)); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if _, err := c.Status(t.Context(), p.Endpoint); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if _, err := c.Capture(t.Context(), p.Endpoint); err != nil {
		t.Error(err)
	}
	if err := c.Promote(t.Context(), p.Endpoint, 8); err != nil {
		t.Error(err)
	}
	if p.connections() != 1 {
		t.Errorf("%d connections", p.connections())
	}
}

// A connection that the processor closed meanwhile costs no second.
func TestConnectionThatWasClosedMeanwhile(t *testing.T) {
	p := newProcessor(t, answer(200, restoredOK))
	c := newTestClient(t, p)
	for range 20 {
		if _, err := c.Restore(t.Context(), p.Endpoint, stateOf(`{}`)); err != nil {
			t.Fatal(err)
		}
		p.CloseClientConnections()
	}
	for _, pause := range p.clock.recorded() {
		if pause != soonWait {
			t.Errorf("waited for %s", pause)
		}
	}
}
