package sdk

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// operator asks the processors of a test over HTTP, each time from another address of this machine, so that the limit for
// one client does not slow it down.
type operator struct {
	t     *testing.T
	asked byte
}

func (o *operator) client() *http.Client {
	o.asked++
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, 0, o.asked)}}
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
}

func (o *operator) try(method string, c *child, path, body string, header ...string) (answer, error) {
	o.t.Helper()
	r, err := http.NewRequestWithContext(o.t.Context(), method, "http://"+c.host+path, bytes.NewBufferString(body))
	if err != nil {
		return answer{}, err
	}
	for pair := range slices.Chunk(header, 2) {
		r.Header.Set(pair[0], pair[1])
	}
	response, err := o.client().Do(r)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return answer{response.StatusCode, string(text), response.Header}, err
}

func (o *operator) ask(method string, c *child, path, body string, header ...string) answer {
	o.t.Helper()
	a, err := o.try(method, c, path, body, header...)
	if err != nil {
		o.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// ready waits for a child to answer.
func (o *operator) ready(c *child) {
	o.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
		if a, err := o.try(http.MethodGet, c, "/ready", ""); err == nil && a.code == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			o.t.Fatal("not ready within 30 s")
		}
	}
}

func (o *operator) copyState(a answer, to *child) {
	o.t.Helper()
	taken := o.ask(http.MethodPost, to, "/state", a.body, "X-Dory-Epoch", a.header.Get("X-Dory-Epoch"), "X-Dory-Sequence", a.header.Get("X-Dory-Sequence"))
	if a.code != http.StatusOK || taken.code != http.StatusOK || taken.header.Get(stateHeader) != a.header.Get(stateHeader) {
		o.t.Fatalf("%d %s is no faithful copy of %d %s", taken.code, taken.body, a.code, a.body)
	}
}

// handOver moves the work from one child to another and returns the sequence of the final state.
func (o *operator) handOver(from, to *child, epoch int64) string {
	o.t.Helper()
	o.copyState(o.ask(http.MethodGet, from, "/state", ""), to)
	final := o.ask(http.MethodPost, from, "/handoff/quiesce", fmt.Sprintf(`{"epoch":%d}`, epoch))
	o.copyState(final, to)
	o.ask(http.MethodPost, to, "/handoff/promote", fmt.Sprintf(`{"epoch":%d}`, epoch+1)).wantSays(o.t, http.StatusOK, `"role":"primary"`)
	return final.header.Get("X-Dory-Sequence")
}

// ledger collects what children print, whoever prints it.
type ledger struct {
	mu      sync.Mutex
	numbers []int64
	readers sync.WaitGroup
}

func (l *ledger) follow(c *child) {
	l.readers.Go(func() {
		for c.lines.Scan() {
			n, err := strconv.ParseInt(c.lines.Text(), 10, 64)
			if err != nil {
				c.t.Error(err)
				return
			}
			l.mu.Lock()
			l.numbers = append(l.numbers, n)
			l.mu.Unlock()
		}
	})
}

func (l *ledger) len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.numbers)
}

// workedOn waits for more numbers.
func (l *ledger) workedOn(t *testing.T, more int) {
	t.Helper()
	want := l.len() + more
	for deadline := time.Now().Add(30 * time.Second); l.len() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("no work was done for 30 s")
		}
	}
}

// wantUnbroken is for after the children's end: every number from 0 up was printed exactly once.
func (l *ledger) wantUnbroken(t *testing.T) {
	t.Helper()
	l.readers.Wait()
	slices.Sort(l.numbers)
	for i, n := range l.numbers {
		if n != int64(i) {
			t.Fatalf("the %dth number is %d of %d: iterations were lost or repeated", i, n, len(l.numbers))
		}
	}
}

func (c *child) exitCode() int {
	c.t.Helper()
	_ = c.cmd.Wait()
	return c.cmd.ProcessState.ExitCode()
}

func TestHundredHandoffsBetweenTwoProcessesKeepTheChain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	o := &operator{t: t}
	var l ledger
	a := startChild(t, "paced", path, "DORY_ROLE_FILE="+filepath.Join(dir, "role-a"))
	b := startChild(t, "paced", path, "DORY_ROLE_FILE="+filepath.Join(dir, "role-b"), "DORY_ROLE=standby", "DORY_EPOCH=")
	for _, c := range []*child{a, b} {
		l.follow(c)
		o.ready(c)
	}
	from, to := a, b
	for epoch := range int64(100) {
		l.workedOn(t, 3)
		o.handOver(from, to, epoch+1)
		from, to = to, from
	}
	l.workedOn(t, 10)
	for _, c := range []*child{to, from} { // The PRIMARY last.
		c.signal(syscall.SIGTERM)
		if code := c.exitCode(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
	l.wantUnbroken(t)
	doc, err := LocalBackend(path).Load(t.Context())
	if err != nil || doc.Metadata.Epoch != 101 || doc.Metadata.Sequence != int64(l.len()) {
		t.Errorf("saved at %v after %d iterations, %v", doc.Metadata.Position, l.len(), err)
	}
}

func TestQuiescedProcessStaysQuiescedAfterAKill(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	roleFile := "DORY_ROLE_FILE=" + filepath.Join(dir, "role")
	o := &operator{t: t}
	c := startChild(t, "paced", path, roleFile)
	c.readUntilSaved(path)
	var l ledger
	l.follow(c)
	final := o.ask(http.MethodPost, c, "/handoff/quiesce", `{"epoch":1}`)
	final.wantSays(t, http.StatusOK, `"epoch":1,"sequence":`)
	c.signal(syscall.SIGKILL)
	c.exitCode()
	l.readers.Wait()
	saved := savedN(t, path)

	again := startChild(t, "paced", path, roleFile) // Its environment says PRIMARY.
	var m ledger
	m.follow(again)
	o.ready(again)
	o.ask(http.MethodGet, again, "/handoff", "").wantSays(t, http.StatusOK, fmt.Sprintf(`"role":"quiesced","epoch":1,"sequence":%d`, saved))
	// Nothing that could start it by itself is left out: probes, reads, its save interval.
	for range 10 {
		o.ask(http.MethodGet, again, "/ready", "").wantSays(t, http.StatusOK, "ready")
		o.ask(http.MethodGet, again, "/state", "").wantSays(t, http.StatusOK, `"data"`)
	}
	if n := m.len(); n > 0 {
		t.Errorf("it did %d iterations by itself", n)
	}
	// The operator has the final state, and rolls back.
	o.ask(http.MethodPost, again, "/state", final.body).wantSays(t, http.StatusOK, "ok")
	o.ask(http.MethodPost, again, "/handoff/resume", `{"epoch":1}`).wantSays(t, http.StatusOK, `"role":"primary"`)
	m.workedOn(t, 3)
	again.signal(syscall.SIGTERM)
	if code := again.exitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	m.readers.Wait()
	if want := final.header.Get("X-Dory-Sequence"); strconv.FormatInt(m.numbers[0], 10) != want {
		t.Errorf("it went on at %d, the final state was at %s", m.numbers[0], want)
	}
}

func TestPromotedProcessStartsAgainAsPrimaryAfterAKill(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	env := []string{"DORY_ROLE_FILE=" + filepath.Join(dir, "role"), "DORY_ROLE=standby", "DORY_EPOCH="}
	o := &operator{t: t}
	c := startChild(t, "paced", path, env...)
	o.ready(c)
	o.ask(http.MethodPost, c, "/state", `{"data":{"n":40},"epoch":1,"sequence":40}`).wantSays(t, http.StatusOK, "ok")
	o.ask(http.MethodPost, c, "/handoff/promote", `{"epoch":2}`).wantSays(t, http.StatusOK, "primary")
	if first := c.read(); first != 40 {
		t.Errorf("it began at %d", first)
	}
	c.readUntilSaved(path)
	c.signal(syscall.SIGKILL)
	c.last()
	saved := savedN(t, path)

	again := startChild(t, "paced", path, env...) // Its environment still says standby.
	if first := again.read(); first != saved {
		t.Errorf("it went on at %d, the state says %d", first, saved)
	}
	o.ready(again)
	var l ledger
	l.follow(again)
	o.ask(http.MethodGet, again, "/handoff", "").wantSays(t, http.StatusOK, `"role":"primary","epoch":2`)
	o.ask(http.MethodPost, again, "/handoff/promote", `{"epoch":2}`).wantSays(t, http.StatusConflict, `"role":"primary","epoch":2`)
	again.signal(syscall.SIGTERM)
	again.exitCode()
}

func TestQuiescedProcessSavesNothingAtItsEnd(t *testing.T) {
	for name, end := range map[string]func(*operator, *child){
		"/prestop": func(o *operator, c *child) {
			o.ask(http.MethodGet, c, "/prestop", "").wantSays(o.t, http.StatusOK, "nothing saved: this instance is quiesced")
		},
		"SIGTERM": func(_ *operator, c *child) { c.signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.json")
			o := &operator{t: t}
			c := startChild(t, "fast", path) // Which saves only at its end.
			o.ready(c)
			var l ledger
			l.follow(c)
			o.ask(http.MethodPost, c, "/handoff/quiesce", `{"epoch":1}`).wantSays(t, http.StatusOK, `"data"`)
			end(o, c)
			if code := c.exitCode(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			l.readers.Wait()
			if _, err := os.Stat(path); err == nil {
				t.Error("a quiesced process saved its state")
			}
		})
	}
}
