package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/dory-io/dory/internal/statexfer"
)

const (
	// leastState has room for what every state has, mostState is what fits into a ConfigMap with its envelope.
	leastState = 1 << 10
	mostState  = 1_000_000
	// iteration is how often the state changes.
	iteration = 100 * time.Millisecond
)

// processor speaks the contract without working: its state is computed from the time when it is asked for it, and
// never the same twice.
type processor struct {
	pod     string
	address string
	epoch   int64
	started time.Time
	clock   clock.PassiveClock
	// sessions is the part of the state that does not change.
	sessions string
	stop     func() error

	mu sync.Mutex
	// captured is when the state was read last, and kept of when the copy is that is known to be stored.
	captured, kept time.Time
	refused        int
}

func newProcessor(name, pod string, epoch int64, clk clock.PassiveClock, stateBytes int) *processor {
	p := &processor{pod: pod, epoch: epoch, started: clk.Now(), clock: clk, stop: func() error { return nil }}
	p.sessions = sessions(name, stateBytes-len(p.state(0)))
	return p
}

// sessions is what a state is made of in practice: many small records of numbers, texts and flags.
func sessions(name string, bytes int) string {
	var text strings.Builder
	for i := 0; ; i++ {
		record := fmt.Sprintf(`,"session-%05d":{"camera":%q,"people":%d,"confidence":%.3f,"since":%d.5,"open":%t,"tags":["door","caf\u00e9"]}`,
			i, name, i*7%50, float64(i%1000)/1000, 1760000000+i, i%3 == 0)
		if text.Len()+len(record) > bytes {
			break
		}
		text.WriteString(record)
	}
	const least = len(`,"z":""`)
	if rest := bytes - text.Len(); rest >= least {
		fmt.Fprintf(&text, `,"z":"%s"`, strings.Repeat("z", rest-least))
	}
	return text.String()
}

// state is the JSON object after so many iterations. Its size is the same for the first million million of them.
func (p *processor) state(sequence int64) string {
	return fmt.Sprintf(`{"n":%q,"at":%.1f%s}`, fmt.Sprintf("%012d", sequence), 1e9+float64(sequence)/10, p.sessions)
}

func (p *processor) sequence(now time.Time) int64 { return 1 + int64(now.Sub(p.started)/iteration) }

// ServeHTTP answers what the operator may ask a processor that is not moved.
func (p *processor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch r.Method + " " + r.URL.Path {
	case "GET /":
		answer(w, `{"service":"dory-processor","endpoints":["/","/health","/ready","/state","/prestop","/handoff"]}`)
	case "GET /health", "GET /ready", "GET /prestop":
		w.Header().Set(statexfer.HeaderSDKVersion, "bench")
		answer(w, `{"status":"ok"}`)
	case "GET /handoff":
		answer(w, fmt.Sprintf(`{"role":"primary","epoch":%d,"sequence":%d,"instance":%q}`, p.epoch, p.sequence(p.clock.Now()), p.pod))
	case "GET /state":
		p.getState(w)
	default:
		// POST /state above all: nobody has lost anything here.
		p.mu.Lock()
		p.refused++
		p.mu.Unlock()
		w.WriteHeader(http.StatusConflict)
		answer(w, `{"error":"not here"}`)
	}
}

func (p *processor) getState(w http.ResponseWriter) {
	now := p.clock.Now()
	sequence := p.sequence(now)
	data := p.state(sequence)
	sum := sha256.Sum256([]byte(data))
	header := w.Header()
	header.Set(statexfer.HeaderEpoch, strconv.FormatInt(p.epoch, 10))
	header.Set(statexfer.HeaderSequence, strconv.FormatInt(sequence, 10))
	header.Set(statexfer.HeaderChecksum, hex.EncodeToString(sum[:]))
	body := fmt.Sprintf(`{"pod_name":%q,"app_name":"bench","captured_at":%q,"state_version":%q,"data":%s,"metrics":{},"connections":[],`+
		`"active_sessions":0,"session_data":{},"uptime_seconds":%.3f,"request_count":0,"last_health_time":null}`,
		p.pod, statexfer.FormatTime(now), statexfer.StateVersion, data, now.Sub(p.started).Seconds())
	header.Set("Content-Length", strconv.Itoa(len(body)))
	p.mu.Lock()
	p.captured = now
	p.mu.Unlock()
	answer(w, body)
}

func answer(w http.ResponseWriter, body string) {
	w.Write([]byte(body)) //nolint:errcheck // The client is gone, and nobody is left to tell.
}

// keep notes that the state which was read last is stored now, and answers the age that the copy before had reached; 0 if
// there was none. A processor is never read again before what was read is stored, or given up.
func (p *processor) keep(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.kept
	p.kept = p.captured
	if before.IsZero() {
		return 0
	}
	return now.Sub(before)
}

// age is that of the stored copy; safe is false where there is none yet.
func (p *processor) age(now time.Time) (age time.Duration, safe bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Sub(p.kept), !p.kept.IsZero()
}
