package statexfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// oddData has what does not survive being decoded and written again: digits, spaces, escapes, order, repetition.
const oddData = `{ "n":[123456789012345678901234567890, 1.0,1e400 ,-0,0.10000000000000001,1E5], "é":"\u00e9\/\ud800", "b":1,"a":2,"b":3 }`

func stateBody(data string) string {
	return `{"pod_name":"dory-p-x","app_name":"p","captured_at":"2026-03-01T11:59:58.123456Z","state_version":"1.0","data":` + data +
		`,"metrics":{"data":[1]},"connections":[],"active_sessions":0,"session_data":{},"uptime_seconds":1.5,"request_count":3,"last_health_time":null}`
}

func TestCapture(t *testing.T) {
	body := stateBody(oddData)
	want := &State{
		Data: []byte(oddData), RawChecksum: rawChecksum([]byte(oddData)),
		CapturedAt: time.Date(2026, 3, 1, 11, 59, 58, 123456000, time.UTC), PodName: "dory-p-x", StateVersion: "1.0", Uptime: 1500 * time.Millisecond,
	}
	positioned := &State{
		Data: want.Data, RawChecksum: want.RawChecksum, CapturedAt: want.CapturedAt, PodName: "dory-p-x", StateVersion: "1.0", Uptime: 1500 * time.Millisecond,
		Position: Position{7, 42}, HasPosition: true,
	}
	of := func(data string) *State {
		return &State{Data: []byte(data), RawChecksum: rawChecksum([]byte(data)), CapturedAt: now, StateVersion: "1.0"}
	}
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		want    *State
	}{
		"of another SDK":               {answer(200, body), want},
		"in chunks":                    {chunked(body[:200], body[200:201], body[201:]), want},
		"slowly, byte by byte":         {chunked(strings.Split(body, "")...), want},
		"closed by the end":            {cut("HTTP/1.0 200 OK\r\n\r\n" + body), want},
		"position in headers":          {answer(200, body, "X-Dory-Epoch: 7", "X-Dory-Sequence: 42"), positioned},
		"position in the body":         {answer(200, body[:len(body)-1]+`,"sequence":42,"epoch":7}`), positioned},
		"headers before the body":      {answer(200, body[:len(body)-1]+`,"sequence":1,"epoch":1}`, "X-Dory-Epoch: 7", "X-Dory-Sequence: 42"), positioned},
		"half a position":              {answer(200, body[:len(body)-1]+`,"sequence":42}`), want},
		"keys that mean other things":  {answer(200, body[:len(body)-1]+`,"sequence":"a","epoch":1.5}`), want},
		"right checksum":               {answer(200, body, "X-Dory-Checksum: "+strings.ToUpper(want.RawChecksum)), want},
		"no more than needed":          {answer(200, `{"data":{},"state_version":"1.0"}`), of(`{}`)},
		"an odd time":                  {answer(200, `{"captured_at":"now","data":{},"state_version":"1.0"}`), of(`{}`)},
		"data twice, the last counts":  {answer(200, `{"data":{"a":1},"state_version":"1.0","data":{"b":2}}`), of(`{"b":2}`)},
		"key in escapes":               {answer(200, `{"d\u0061ta":{"a":1},"state_version":"1.0"}`), of(`{"a":1}`)},
		"data within another member":   {answer(200, `{"metrics":{"data":{"x":1}},"data":{},"state_version":"1.0"}`), of(`{}`)},
		"data in a string":             {answer(200, `{"app_name":"\",\"data\":{\"x\":1}","data":{},"state_version":"1.0"}`), of(`{}`)},
		"Data in capitals is not data": {answer(200, `{"data":{},"Data":{"x":1},"state_version":"1.0"}`), of(`{}`)},
		"error beside a whole state":   {answer(200, `{"error":"a warning","data":{},"state_version":"1.0"}`), of(`{}`)},
		"white space":                  {answer(200, " {\r\n\t\"data\" : {\n} ,\n\"state_version\" :\"1.0\"\n}\n "), of("{\n}")},
		"as much as is allowed":        {answer(200, largest()), of(largest()[len(`{"state_version":"1.0","data":`) : MaxStateBytes-1])},
		"as much in chunks":            {chunked(largest()), of(largest()[len(`{"state_version":"1.0","data":`) : MaxStateBytes-1])},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, test.handler)
			got, err := newTestClient(t, p).Capture(t.Context(), p.Endpoint)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Data, test.want.Data) {
				t.Errorf("data %.200s, want %.200s", got.Data, test.want.Data)
			}
			if diff := cmp.Diff(test.want, got, cmpopts.IgnoreUnexported(State{}), cmpopts.IgnoreFields(State{}, "Data")); diff != "" {
				t.Error(diff)
			}
			requests := p.got()
			if len(requests) != 1 || requests[0].method != http.MethodGet || requests[0].path != "/state" ||
				requests[0].header.Get("Authorization") != "Bearer "+token || requests[0].header.Get("Accept-Encoding") != "" {
				t.Errorf("requests %v", requests)
			}
		})
	}
}

// largest is a body of just the size that is allowed.
func largest() string {
	const before, after = `{"state_version":"1.0","data":{"a":"`, `"}}`
	return before + strings.Repeat("x", MaxStateBytes-len(before)-len(after)) + after
}

func TestCaptureFails(t *testing.T) {
	body := stateBody(`{"a":1}`)
	short := "HTTP/1.1 200 OK\r\nContent-Length: " + strconv.Itoa(len(body)) + "\r\n\r\n" + body[:100]
	for name, test := range map[string]struct {
		handler  http.HandlerFunc
		want     error
		says     string
		requests int
	}{
		"200 with an error":                    {answer(200, `{"error":"dictionary changed size"}`), ErrNotState, "dictionary changed size", 1},
		"200 with an error and data":           {answer(200, `{"error":"x","data":{}}`), ErrNotState, `the processor says "x"`, 1},
		"no data":                              {answer(200, `{"state_version":"1.0"}`), ErrNotState, "lacks data or state_version", 1},
		"no state_version":                     {answer(200, `{"data":{}}`), ErrNotState, "lacks data or state_version", 1},
		"state_version is null":                {answer(200, `{"data":{},"state_version":null}`), ErrNotState, "its state_version is null", 1},
		"state_version is empty":               {answer(200, `{"data":{},"state_version":""}`), ErrNotState, `its state_version is ""`, 1},
		"data is null":                         {answer(200, `{"data":null,"state_version":"1.0"}`), ErrNotState, "no object but null", 1},
		"data is an array":                     {answer(200, `{"data":[1,2],"state_version":"1.0"}`), ErrNotState, "no object but [1,2]", 1},
		"data is a text":                       {answer(200, `{"data":"{}","state_version":"1.0"}`), ErrNotState, `no object but "{}"`, 1},
		"data twice, the last is null":         {answer(200, `{"data":{},"state_version":"1.0","data":null}`), ErrNotState, "no object but null", 1},
		"HTML":                                 {answer(200, "<html><body>It works!</body></html>"), ErrNotState, "expected an object, found '<'", 1},
		"an array":                             {answer(200, `[]`), ErrNotState, "expected an object, found '['", 1},
		"nothing":                              {answer(200, ""), ErrNotState, "it ends too early", 1},
		"two documents":                        {answer(200, body+body), ErrNotState, "more text after the object", 1},
		"ends too early by its own count":      {answer(200, body[:100]), ErrNotState, "it ends too early", 1},
		"not UTF-8":                            {answer(200, stateBody("{\"a\":\"\xff\"}")), ErrNotState, "byte 0xff is not UTF-8", 1},
		"compressed":                           {answer(200, "\x1f\x8b\x08\x00", "Content-Encoding: gzip"), ErrNotState, "invalid JSON", 1},
		"too deep":                             {answer(200, stateBody(strings.Repeat(`{"a":`, 513)+"1"+strings.Repeat("}", 513))), ErrTooDeep, "levels", 1},
		"broken within data":                   {answer(200, stateBody(`{"a":tru}`)), ErrInvalidJSON, "expected true, found '}'", 1},
		"NaN, as Python writes it":             {answer(200, stateBody(`{"a":NaN}`)), ErrNotState, "expected a value, found 'N'", 1},
		"epoch is no number":                   {answer(200, body, "X-Dory-Epoch: x", "X-Dory-Sequence: 1"), ErrNotState, `epoch "x"`, 1},
		"negative sequence":                    {answer(200, body, "X-Dory-Epoch: 1", "X-Dory-Sequence: -1"), ErrNotState, `sequence "-1"`, 1},
		"half a position in headers":           {answer(200, body, "X-Dory-Epoch: 1"), ErrNotState, `sequence ""`, 1},
		"another checksum":                     {answer(200, body, "X-Dory-Checksum: 00"), ErrMismatch, "X-Dory-Checksum says 00", 1},
		"wrong checksum":                       {answer(200, body, "X-Dory-Checksum: "+strings.Repeat("0", 64)), ErrMismatch, "X-Dory-Checksum says 000", 1},
		"no checksum of a large state":         {answer(200, largest(), "X-Dory-Checksum: "+strings.Repeat("x", 64)), ErrMismatch, "X-Dory-Checksum says xxx", 1},
		"401":                                  {answer(401, `{"error":"`+unknown+`"}`), ErrUnauthorized, "status 401: " + unknown, 1},
		"403":                                  {answer(403, `nope`), ErrUnauthorized, "status 403: nope", 1},
		"404":                                  {answer(404, "<html>\n<b>not\x00 here"), ErrRefused, "404: <html> <b>not here", 1},
		"a redirect":                           {answer(302, "", "Location: /elsewhere"), ErrRefused, "status 302", 1},
		"another success":                      {answer(204, ""), ErrRefused, "status 204", 1},
		"11 MB":                                {answer(200, strings.Repeat(" ", 11_000_000)), ErrTooLarge, "an answer of 11000000 bytes, the limit is 10485760", 1},
		"11 MB in chunks":                      {chunked(strings.Repeat(" ", 11_000_000)), ErrTooLarge, "more than 10485760 bytes", 1},
		"one byte too much":                    {chunked(largest() + " "), ErrTooLarge, "more than 10485760 bytes", 1},
		"truncated":                            {cut(short), ErrUnavailable, "unexpected EOF", maxTries},
		"truncated in chunks":                  {cut("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + body[:100]), ErrUnavailable, "unexpected EOF", maxTries},
		"truncated, size unknown":              {cut("HTTP/1.0 200 OK\r\n\r\n" + body[:100]), ErrUnavailable, "unexpected EOF", maxTries},
		"connection closed":                    {cut(""), ErrUnavailable, "EOF", maxTries},
		"no HTTP":                              {cut("SSH-2.0-x\r\n"), ErrUnavailable, "malformed HTTP", maxTries},
		"500":                                  {answer(500, `{"error":"boom"}`), ErrUnavailable, "tries: 8): status 500: boom", maxTries},
		"503":                                  {answer(503, `{"error":"restoring"}`), ErrUnavailable, "status 503: restoring", maxTries},
		"429":                                  {answer(429, `{"error":"Too many requests"}`, "Retry-After: 1"), ErrUnavailable, "status 429", maxTries},
		"429 that asks for too much patience":  {answer(429, ``, "Retry-After: 3600"), ErrUnavailable, "status 429", 1},
		"503 of a processor that will be away": {answer(503, ``, "Retry-After: Sun, 01 Mar 2026 13:00:00 GMT"), ErrUnavailable, "status 503", 1},
		"headers without end":                  {cut("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHeaderBytes+1)), ErrUnavailable, "headers exceeded", maxTries},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, test.handler)
			_, err := newTestClient(t, p).Capture(t.Context(), p.Endpoint)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %v that says %q", err, test.want, test.says)
			}
			if got := len(p.got()); got != test.requests {
				t.Errorf("%d requests, want %d", got, test.requests)
			}
			if !strings.HasPrefix(err.Error(), "GET "+p.Endpoint.URL+"/state: ") || strings.Contains(err.Error(), token) {
				t.Errorf("%v must name the request and not the token", err)
			}
		})
	}
}

// To sum a large state, and to look for its end, would take long in the middle of a handoff.
func TestCaptureTakesAProcessorsWordForALargeState(t *testing.T) {
	body := largest()
	data := body[len(`{"state_version":"1.0","data":`) : len(body)-1]
	checksum := "X-Dory-Checksum: " + strings.Repeat("aB", 32)
	length := func(n int) string { return "X-Dory-Data-Length: " + strconv.Itoa(n) }
	for name, test := range map[string]struct {
		header []string
		want   error
	}{
		"checksum":            {[]string{checksum}, nil},
		"checksum and length": {[]string{checksum, length(len(data))}, nil},
		"length is nonsense":  {[]string{checksum, length(-1)}, nil},
		"length is 1":         {[]string{checksum, length(1)}, nil},
		"length is too small": {[]string{checksum, length(len(data) - 1)}, ErrNotState},
		"length is too large": {[]string{checksum, length(len(data) + 1)}, ErrNotState},
		"length is far off":   {[]string{checksum, length(1 << 30)}, ErrNotState},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, answer(200, body, test.header...))
			state, err := newTestClient(t, p).Capture(t.Context(), p.Endpoint)
			if !errors.Is(err, test.want) {
				t.Error(err)
			}
			if err == nil && (state.RawChecksum != strings.Repeat("ab", 32) || string(state.Data) != data) {
				t.Errorf("checksum %s, %d bytes", state.RawChecksum, len(state.Data))
			}
		})
	}
	t.Run("but of a small one only its checksum, and that is compared", func(t *testing.T) {
		p := newProcessor(t, answer(200, stateBody(`{"a":1}`), "X-Dory-Checksum: "+rawChecksum([]byte(`{"a":1}`)), length(3)))
		if state, err := newTestClient(t, p).Capture(t.Context(), p.Endpoint); err != nil || string(state.Data) != `{"a":1}` {
			t.Errorf("%+v, %v", state, err)
		}
	})
}

// A processor that sends more than is allowed is not listened to until its end.
func TestTooLongAnswersAreNotReadToTheirEnd(t *testing.T) {
	capture := func(c *Client, ctx context.Context, of Endpoint) error {
		_, err := c.Capture(ctx, of)
		return err
	}
	status := func(c *Client, ctx context.Context, of Endpoint) error {
		_, err := c.Status(ctx, of)
		return err
	}
	for name, test := range map[string]struct {
		length string
		do     func(*Client, context.Context, Endpoint) error
		want   error
	}{
		"state of known size":   {"1000000000", capture, ErrTooLarge},
		"state of unknown size": {"", capture, ErrTooLarge},
		"reply of known size":   {"1000000000", status, ErrRefused},
		"reply of unknown size": {"", status, ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			length := test.length
			sent := make(chan int, 1)
			p := newProcessor(t, func(w http.ResponseWriter, _ *http.Request) {
				if length != "" {
					w.Header().Set("Content-Length", length)
				}
				piece := strings.Repeat(" ", 1<<20)
				total := 0
				for range 900 {
					n, err := io.WriteString(w, piece)
					total += n
					if err != nil {
						break
					}
				}
				sent <- total
			})
			if err := test.do(newTestClient(t, p), t.Context(), p.Endpoint); !errors.Is(err, test.want) {
				t.Error(err)
			}
			if total := <-sent; total > 100<<20 {
				t.Errorf("%d bytes were sent", total)
			}
		})
	}
}

func TestCaptureTriesAgain(t *testing.T) {
	good := answer(200, stateBody(`{}`))
	const second = 750 * time.Millisecond // as jittered
	for name, test := range map[string]struct {
		bad    []http.HandlerFunc
		pauses []time.Duration
	}{
		"500, 503, then good":        {[]http.HandlerFunc{answer(500, ""), answer(503, "")}, []time.Duration{second, 2 * second}},
		"up to the cap":              {[]http.HandlerFunc{answer(500, ""), answer(502, ""), answer(503, ""), answer(504, ""), answer(500, ""), answer(500, ""), answer(500, "")}, []time.Duration{second, 2 * second, 4 * second, 8 * second, 16 * second, 30 * second, 30 * second}},
		"429 in seconds":             {[]http.HandlerFunc{answer(429, "", "Retry-After: 7")}, []time.Duration{7 * time.Second}},
		"429 with a date":            {[]http.HandlerFunc{answer(429, "", "Retry-After: Sun, 01 Mar 2026 12:00:09 GMT")}, []time.Duration{9 * time.Second}},
		"429 with a date that is by": {[]http.HandlerFunc{answer(429, "", "Retry-After: Sun, 01 Mar 2026 11:00:09 GMT")}, []time.Duration{second}},
		"429 with nonsense":          {[]http.HandlerFunc{answer(429, "", "Retry-After: soon")}, []time.Duration{second}},
		"429 with less than ours":    {[]http.HandlerFunc{answer(429, ""), answer(429, "", "Retry-After: 1")}, []time.Duration{second, 2 * second}},
		"503 in seconds":             {[]http.HandlerFunc{answer(503, "", "Retry-After: 5")}, []time.Duration{5 * time.Second}},
		"408":                        {[]http.HandlerFunc{answer(408, "")}, []time.Duration{second}},
		"broken, then soon":          {[]http.HandlerFunc{cut("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), cut("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")}, []time.Duration{soonWait, second}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, append(test.bad, good)...)
			if _, err := newTestClient(t, p).Capture(t.Context(), p.Endpoint); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.pauses, p.clock.recorded()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCaptureGivesUpAfterTheTimeout(t *testing.T) {
	slow := func(p *processor) http.HandlerFunc { // Begins, and never ends.
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"data":{"a":`)
			_ = http.NewResponseController(w).Flush()
			p.hang(w, r)
		}
	}
	for name, handler := range map[string]func(*processor) http.HandlerFunc{
		"hangs":          func(p *processor) http.HandlerFunc { return p.hang },
		"hangs half-way": slow,
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, nil, answer(200, stateBody(`{}`)))
			p.handlers[0] = handler(p)
			if _, err := newTestClient(t, p).Capture(t.Context(), p.Endpoint); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff([]time.Duration{750 * time.Millisecond}, p.clock.recorded()); diff != "" {
				t.Error(diff)
			}
			p = newProcessor(t, nil)
			p.handlers[0] = handler(p)
			_, err := newTestClient(t, p).Capture(t.Context(), p.Endpoint)
			if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no answer within 30s") || len(p.got()) != maxTries {
				t.Errorf("%v after %d requests", err, len(p.got()))
			}
		})
	}
}

func TestCaptureEndsWithItsContext(t *testing.T) {
	t.Run("while it waits for an answer", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		p := newProcessor(t, func(_ http.ResponseWriter, r *http.Request) {
			cancel()
			<-r.Context().Done()
		})
		_, err := newTestClient(t, p).Capture(ctx, p.Endpoint)
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	t.Run("while it waits for another try", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		var p *processor
		p = newProcessor(t, func(w http.ResponseWriter, r *http.Request) {
			p.clock.holds(func() { cancel(errors.New("enough")) })
			answer(500, "boom")(w, r)
		})
		_, err := newTestClient(t, p).Capture(ctx, p.Endpoint)
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "enough") {
			t.Error(err)
		}
	})
	t.Run("by its deadline", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		p := newProcessor(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		_, err := newTestClient(t, p).Capture(ctx, p.Endpoint)
		if !errors.Is(err, ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}
