package statexfer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func stateOf(data string) *State {
	return &State{
		Data: json.RawMessage(data), Position: Position{7, 42}, HasPosition: true,
		RawChecksum: rawChecksum([]byte(data)), StateVersion: StateVersion,
	}
}

const restoredOK = `{"status":"ok","message":"State restored"}`

func TestRestore(t *testing.T) {
	plain := stateOf(oddData)
	plain.Position, plain.HasPosition = Position{}, false
	versioned := stateOf(oddData)
	versioned.DataVersion = `v"2`
	for name, test := range map[string]struct {
		state   *State
		handler http.HandlerFunc
		body    string
		want    *Restored
	}{
		"to another SDK":   {plain, answer(200, restoredOK), `{"data":` + oddData + `}`, &Restored{}},
		"with a position":  {stateOf(oddData), answer(200, restoredOK), `{"data":` + oddData + `,"epoch":7,"sequence":42}`, &Restored{}},
		"with its version": {versioned, answer(200, restoredOK), `{"data":` + oddData + `,"epoch":7,"sequence":42,"data_version":"v\"2"}`, &Restored{}},
		"checksum in the body": {
			stateOf(`{}`), answer(200, `{"status":"ok","checksum":"ab","epoch":7,"sequence":42}`), `{"data":{},"epoch":7,"sequence":42}`,
			&Restored{Checksum: "ab"},
		},
		"checksum in a header": {
			stateOf(`{}`), answer(200, `{"status":"ok"}`, "X-Dory-Checksum: cd"), `{"data":{},"epoch":7,"sequence":42}`, &Restored{Checksum: "cd"},
		},
		"migrated": {
			stateOf(`{}`), answer(200, `{"status":"ok","checksum":"ab","migrated":true,"received":"ef"}`), `{"data":{},"epoch":7,"sequence":42}`,
			&Restored{Checksum: "ab", Migrated: true, Received: "ef"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, test.handler)
			got, err := newTestClient(t, p).Restore(t.Context(), p.Endpoint, test.state)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			request := p.got()[0]
			if request.method != http.MethodPost || request.path != "/state" || request.body != test.body || request.length != int64(len(test.body)) {
				t.Errorf("got %+v, want body %s", request, test.body)
			}
			header := request.header
			if header.Get("Authorization") != "Bearer "+token || header.Get("Content-Type") != "application/json" || header["Idempotency-Key"] != nil {
				t.Errorf("headers %v", header)
			}
		})
	}
}

func TestRestoreFails(t *testing.T) {
	for name, test := range map[string]struct {
		state    *State
		handler  http.HandlerFunc
		want     error
		says     string
		requests int
	}{
		"400":                   {stateOf(`{}`), answer(400, `{"error":"unknown key a"}`), ErrRefused, "status 400: unknown key a", 1},
		"401":                   {stateOf(`{}`), answer(401, `{"error":"`+unknown+`"}`), ErrUnauthorized, unknown, 1},
		"409":                   {stateOf(`{}`), answer(409, `{"error":"older","role":"standby","epoch":7,"sequence":43}`), ErrRefused, "status 409: older: it is standby at epoch 7 sequence 43", 1},
		"409, higher epoch":     {stateOf(`{}`), answer(409, `{"error":"older","role":"standby","epoch":8,"sequence":0}`), ErrSuperseded, "epoch 8", 1},
		"413":                   {stateOf(`{}`), answer(413, `{"error":"too large"}`), ErrRefused, "status 413", 1},
		"413 is too large":      {stateOf(`{}`), answer(413, ""), ErrTooLarge, "status 413", 1},
		"404":                   {stateOf(`{}`), answer(404, ""), ErrRefused, "status 404", 1},
		"307":                   {stateOf(`{}`), answer(307, "", "Location: /elsewhere"), ErrRefused, "status 307", 1},
		"200 with an error":     {stateOf(`{}`), answer(200, `{"error":"set_state raised"}`), ErrRefused, "set_state raised", 1},
		"200 that is not ok":    {stateOf(`{}`), answer(200, `{"status":"failed","message":"disk full"}`), ErrRefused, "disk full", 1},
		"200 with nothing":      {stateOf(`{}`), answer(200, ""), ErrRefused, "status 200", 1},
		"200 with HTML":         {stateOf(`{}`), answer(200, "<html>hello"), ErrRefused, "<html>hello", 1},
		"200, endless":          {stateOf(`{}`), answer(200, strings.Repeat(" ", 1<<20)), ErrRefused, "status 200", 1},
		"500":                   {stateOf(`{}`), answer(500, `{"error":"boom"}`), ErrUnavailable, "boom", maxTries},
		"truncated":             {stateOf(`{}`), cut("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), ErrUnavailable, "unexpected EOF", maxTries},
		"too large for anybody": {stateOf(`{"a":"` + strings.Repeat("x", MaxStateBytes) + `"}`), answer(200, restoredOK), ErrTooLarge, "the limit is 10485760", 0},
		"nothing to restore":    {&State{}, answer(200, restoredOK), ErrNotState, "nothing to restore", 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, test.handler)
			_, err := newTestClient(t, p).Restore(t.Context(), p.Endpoint, test.state)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) {
				t.Errorf("got %v, want %v that says %q", err, test.want, test.says)
			}
			if got := len(p.got()); got != test.requests {
				t.Errorf("%d requests, want %d", got, test.requests)
			}
			if errors.Is(err, ErrSuperseded) != errors.Is(test.want, ErrSuperseded) {
				t.Errorf("superseded: %v", err)
			}
		})
	}
}

func TestRefusalTellsWhereTheProcessorIs(t *testing.T) {
	p := newProcessor(t, answer(409, `{"error":"no","role":"primary","epoch":9,"sequence":3}`))
	_, err := newTestClient(t, p).Restore(t.Context(), p.Endpoint, stateOf(`{}`))
	var refusal *Refusal
	if !errors.As(err, &refusal) || refusal.Status != 409 || refusal.Message != "no" || refusal.Role != "primary" || refusal.Position != (Position{9, 3}) {
		t.Errorf("%v is %+v", err, refusal)
	}
	if !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
}

// A state without a position could undo what its processor did since an attempt of which nobody knows how it ended.
func TestRestoreWithoutPositionIsRepeatedOnlyIfItTookNoEffect(t *testing.T) {
	state := stateOf(`{}`)
	state.Position, state.HasPosition = Position{}, false
	for name, test := range map[string]struct {
		first    http.HandlerFunc
		repeated bool
	}{
		"429":              {answer(429, "", "Retry-After: 1"), true},
		"503":              {answer(503, ""), true},
		"500":              {answer(500, ""), false},
		"connection broke": {cut(""), false},
		"truncated":        {cut("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, test.first, answer(200, restoredOK))
			_, err := newTestClient(t, p).Restore(t.Context(), p.Endpoint, state)
			if test.repeated != (err == nil) || test.repeated != (len(p.got()) == 2) {
				t.Errorf("%d requests, %v", len(p.got()), err)
			}
			if err != nil && !errors.Is(err, ErrUnavailable) {
				t.Error(err)
			}
		})
	}
	t.Run("hangs", func(t *testing.T) {
		p := newProcessor(t, nil, answer(200, restoredOK))
		p.handlers[0] = p.hang
		if _, err := newTestClient(t, p).Restore(t.Context(), p.Endpoint, state); !errors.Is(err, ErrUnavailable) || len(p.got()) != 1 {
			t.Errorf("%d requests, %v", len(p.got()), err)
		}
	})
}

func TestRestoreSendsTheSameAgain(t *testing.T) {
	p := newProcessor(t, answer(503, ""), cut(""), answer(429, ""), answer(200, restoredOK))
	if _, err := newTestClient(t, p).Restore(t.Context(), p.Endpoint, stateOf(oddData)); err != nil {
		t.Fatal(err)
	}
	for i, request := range p.got() {
		if want := `{"data":` + oddData + `,"epoch":7,"sequence":42}`; request.body != want {
			t.Errorf("request %d: %s", i, request.body)
		}
	}
}

// net/http repeats by itself what a connection that it had kept did not answer, but only what may be repeated.
func TestRestoreThroughAConnectionThatBreaks(t *testing.T) {
	positioned, other := stateOf(`{}`), stateOf(`{}`)
	other.HasPosition = false
	for name, test := range map[string]struct {
		state    *State
		requests int
		want     error
	}{
		"with a position":    {positioned, 3, nil},
		"without a position": {other, 2, ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, answer(200, stateBody(`{}`)), cut(""), answer(200, restoredOK))
			c := newTestClient(t, p)
			if _, err := c.Capture(t.Context(), p.Endpoint); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Restore(t.Context(), p.Endpoint, test.state); !errors.Is(err, test.want) {
				t.Error(err)
			}
			if len(p.got()) != test.requests || len(p.clock.recorded()) != 0 {
				t.Errorf("%d requests with pauses %v", len(p.got()), p.clock.recorded())
			}
		})
	}
}

// A processor that refuses does not read the rest of a large state; its reason must be heard nevertheless.
func TestRestoreHearsARefusalBeforeItHasSentEverything(t *testing.T) {
	p := newProcessor(t, answer(401, `{"error":"`+unknown+`"}`))
	_, err := newTestClient(t, p).Restore(t.Context(), p.Endpoint, stateOf(`{"a":"`+strings.Repeat("x", 8<<20)+`"}`))
	if !errors.Is(err, ErrUnauthorized) {
		t.Error(err)
	}
}

// A pod that is about to listen is not made to wait for a second.
func TestRestoreFindsAPodThatBeginsToListen(t *testing.T) {
	p := newProcessor(t, answer(200, restoredOK))
	transport := newTransport()
	t.Cleanup(transport.CloseIdleConnections)
	dial, refused := transport.DialContext, 2
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if refused--; refused >= 0 {
			return dial(ctx, network, closedPort(t))
		}
		return dial(ctx, network, address)
	}
	c := NewClient(ClientConfig{Transport: transport, Clock: p.clock, Random: func() float64 { return 0.5 }})
	state := stateOf(`{}`)
	state.HasPosition = false // What was refused by the kernel took no effect.
	if _, err := c.Restore(t.Context(), p.Endpoint, state); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]time.Duration{soonWait, 750 * time.Millisecond}, p.clock.recorded()); diff != "" {
		t.Error(diff)
	}
}

func closedPort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // Closed at once.
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

func TestVerify(t *testing.T) {
	state := stateOf(`{"a":1.0,"b":[2,"é"]}`)
	same := state.RawChecksum
	for name, test := range map[string]struct {
		restored *Restored
		held     http.HandlerFunc
		want     error
		says     string
		requests int
	}{
		"the same bytes":              {&Restored{Checksum: same}, nil, nil, "", 0},
		"the same bytes, in capitals": {&Restored{Checksum: strings.ToUpper(same)}, nil, nil, "", 0},
		"migrated":                    {&Restored{Checksum: "ab", Migrated: true, Received: same}, nil, nil, "", 0},
		"received, but not migrated":  {&Restored{Checksum: "ab", Received: same}, answer(200, stateBody(`{"a":2}`)), ErrMismatch, "should hold", 1},
		"migrated something else":     {&Restored{Migrated: true, Received: "ab"}, answer(200, stateBody(`{"a":2}`)), ErrMismatch, "should hold", 1},
		"read back, the same bytes":   {&Restored{}, answer(200, stateBody(string(state.Data))), nil, "", 1},
		"read back, the same meaning": {&Restored{}, answer(200, stateBody(`{ "b" : [2, "\u00e9"], "a" : 1e0 }`)), nil, "", 1},
		"nothing known":               {nil, answer(200, stateBody(string(state.Data))), nil, "", 1},
		"another number":              {&Restored{}, answer(200, stateBody(`{"a":1,"b":[2,"é"]}`)), ErrMismatch, "should hold", 1},
		"empty, as after trap 6":      {&Restored{}, answer(200, stateBody(`{}`)), ErrMismatch, "should hold", 1},
		"200 with an error":           {&Restored{}, answer(200, `{"error":"x"}`), ErrNotState, "reading the restored state back", 1},
		"beyond a float":              {&Restored{}, answer(200, stateBody(`{"a":1e999}`)), ErrMismatch, "beyond the range", 1},
		"not there":                   {&Restored{}, answer(503, ""), ErrUnavailable, "reading the restored state back", maxTries},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcessor(t, test.held)
			err := newTestClient(t, p).Verify(t.Context(), p.Endpoint, state, test.restored)
			if !errors.Is(err, test.want) || (err != nil && !strings.Contains(err.Error(), test.says)) {
				t.Errorf("got %v, want %v that says %q", err, test.want, test.says)
			}
			if got := len(p.got()); got != test.requests {
				t.Errorf("%d requests, want %d", got, test.requests)
			}
		})
	}
	t.Run("a state that has no canonical form", func(t *testing.T) {
		p := newProcessor(t, answer(200, stateBody(`{}`)))
		err := newTestClient(t, p).Verify(t.Context(), p.Endpoint, stateOf(`{"a":1e999}`), nil)
		if !errors.Is(err, ErrMismatch) || !errors.Is(err, ErrInvalidJSON) {
			t.Error(err)
		}
	})
}

func TestStateAsDocument(t *testing.T) {
	state := stateOf(`{"a":1.0}`)
	state.CapturedAt, state.PodName, state.DataVersion = written, "dory-p-x", "3"
	text, err := state.Document("p").Encode()
	if err != nil {
		t.Fatal(err)
	}
	document, err := Decode(text)
	if err != nil {
		t.Fatal(err)
	}
	back := document.State()
	sum, err := state.Checksum()
	if err != nil {
		t.Fatal(err)
	}
	backSum, err := back.Checksum()
	if err != nil || backSum != sum {
		t.Errorf("checksum %s, want %s (%v)", backSum, sum, err)
	}
	if back.Position != state.Position || !back.HasPosition || !back.CapturedAt.Equal(written) || back.PodName != "dory-p-x" || back.DataVersion != "3" {
		t.Errorf("%+v", back)
	}
	if back.RawChecksum != rawChecksum(back.Data) {
		t.Error("the raw checksum is not that of the data")
	}
	if (Document{Payload: json.RawMessage(`{}`)}).State().HasPosition {
		t.Error("a document of another SDK has no position")
	}
}

// inProcess carries requests to a handler without a network.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	p.ServeHTTP(w, r)
	if r.Body != nil {
		_ = r.Body.Close()
	}
	return w.Result(), nil
}

// FuzzTransfer moves states from a processor to another one, both of which use encoding/json.
func FuzzTransfer(f *testing.F) {
	f.Add([]byte(oddData), int64(7), int64(42), "v1")
	f.Add([]byte(`{"data":{"data":null},"epoch":1}`), int64(0), int64(0), "")
	f.Add([]byte(" {\"a\" :\n[]} "), int64(1), int64(1)<<62, "\"\\\x00é")
	f.Fuzz(func(t *testing.T, data []byte, epoch, sequence int64, version string) {
		data = bytes.TrimSpace(data)
		if !json.Valid(data) || data[0] != '{' || !utf8.Valid(data) || epoch < 0 || sequence < 0 || !utf8.ValidString(version) {
			t.Skip()
		}
		var taken []byte
		mux := http.NewServeMux()
		mux.HandleFunc("GET /state", func(w http.ResponseWriter, _ *http.Request) {
			text, err := json.Marshal(version)
			if err != nil {
				t.Fatal(err)
			}
			body := stateBody(string(data))
			answer(200, body[:len(body)-1]+`,"data_version":`+string(text)+`}`,
				"X-Dory-Epoch: "+strconv.FormatInt(epoch, 10), "X-Dory-Sequence: "+strconv.FormatInt(sequence, 10))(w, nil)
		})
		mux.HandleFunc("POST /state", func(w http.ResponseWriter, r *http.Request) {
			var body struct {
				Data        json.RawMessage `json:"data"`
				Epoch       int64           `json:"epoch"`
				Sequence    int64           `json:"sequence"`
				DataVersion string          `json:"data_version"`
			}
			text, err := io.ReadAll(r.Body)
			if err != nil || json.Unmarshal(text, &body) != nil || body.Epoch != epoch || body.Sequence != sequence || body.DataVersion != version {
				t.Errorf("%q: %+v, %v", text, body, err)
			}
			taken = body.Data
			answer(200, `{"status":"ok","checksum":"`+rawChecksum(body.Data)+`"}`)(w, nil)
		})
		c := NewClient(ClientConfig{Transport: inProcess{mux}})
		to := Endpoint{URL: "http://processor"}
		state, err := c.Capture(t.Context(), to)
		if errors.Is(err, ErrTooDeep) {
			t.Skip()
		}
		if err != nil {
			t.Fatal(err)
		}
		restored, err := c.Restore(t.Context(), to, state)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Verify(t.Context(), to, state, restored); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(taken, data) {
			t.Fatalf("%q became %q", data, taken)
		}
	})
}
