// Impostor is a processor that does not keep to the contract in one thing: it stands before a real counter, with which it
// lives and dies, and answers one of its endpoints in its place. IMPOSTOR_VICE says which and how, IMPOSTOR_COUNTER is the path
// of the counter.
package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	captures = http.MethodGet + " /state"
	restores = http.MethodPost + " /state"
	quiesces = http.MethodPost + " /handoff/quiesce"
)

// vice is what is answered in place of the counter, or before it answers.
type vice struct {
	endpoint string
	answers  func(counter http.Handler) http.HandlerFunc
}

// unknownCaller is what the public SDK answers to a wrong token.
var unknownCaller = fmt.Sprintf(`{"error":%q}`, http.StatusText(http.StatusUnauthorized))

var vices = map[string]vice{
	"captures-rubbish":      {captures, always(http.StatusOK, "<html>welcome</html>")},
	"captures-an-error":     {captures, always(http.StatusOK, `{"error":"get_state raised"}`)},
	"captures-unauthorised": {captures, always(http.StatusUnauthorized, unknownCaller)},
	"captures-11-mb":        {captures, always(http.StatusOK, `{"state_version":"1.0","data":{"x":"`+strings.Repeat("x", 11<<20)+`"}}`)},
	"captures-cut-short":    {captures, cutShort},
	"captures-nothing":      {captures, nothing},
	"captures-slowly":       {captures, slowly},
	"captures-reluctantly":  {captures, reluctantly},
	"never-quiesces":        {quiesces, nothing},
	"refuses-to-quiesce":    {quiesces, always(http.StatusConflict, `{"error":"no","role":"primary","epoch":9}`)},
	"restores-rubbish":      {restores, always(http.StatusOK, "<html>welcome</html>")},
	"restores-unauthorised": {restores, always(http.StatusUnauthorized, unknownCaller)},
	"restores-too-large":    {restores, always(http.StatusRequestEntityTooLarge, `{"error":"too large"}`)},
	"restores-nothing":      {restores, nothing},
	"restores-a-lie":        {restores, always(http.StatusOK, `{"status":"ok","message":"State restored"}`)},
}

func answer(w http.ResponseWriter, code int, body string) {
	w.WriteHeader(code)
	w.Write([]byte(body)) //nolint:errcheck // The client is gone, and nobody is left to tell.
}

func always(code int, body string) func(http.Handler) http.HandlerFunc {
	return func(http.Handler) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { answer(w, code, body) }
	}
}

// nothing answers when nobody waits any more.
func nothing(http.Handler) http.HandlerFunc {
	return func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
}

// cutShort ends in the middle of what it announced.
func cutShort(http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		answer(w, http.StatusOK, `{"state_version":"1.0","data":{"n":1`)
	}
}

// slowly answers what is right, when it is.
func slowly(counter http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		counter.ServeHTTP(w, r)
	}
}

// reluctantly answers only every third request.
func reluctantly(counter http.Handler) http.HandlerFunc {
	var asked atomic.Int64
	return func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1)%3 != 0 {
			w.Header().Set("Retry-After", "1")
			answer(w, http.StatusTooManyRequests, `{"error":"Too many requests"}`)
			return
		}
		counter.ServeHTTP(w, r)
	}
}

func main() {
	err := run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "impostor:", err)
		os.Exit(1)
	}
}

// run ends with the counter.
func run() error {
	name := os.Getenv("IMPOSTOR_VICE")
	v, known := vices[name]
	if !known {
		return fmt.Errorf("IMPOSTOR_VICE is %q, which is none that it has", name)
	}
	port, err := strconv.Atoi(os.Getenv("DORY_HEALTH_PORT"))
	if err != nil {
		return fmt.Errorf("DORY_HEALTH_PORT: %w", err)
	}
	own, behind := address(port), address(port+1)
	counter, err := startCounter(port + 1)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: behind})
	mux.Handle("/", proxy)
	mux.Handle(v.endpoint, v.answers(proxy))
	server := http.Server{Addr: own, Handler: mux, ReadHeaderTimeout: time.Minute}
	go func() {
		fmt.Fprintln(os.Stderr, "impostor:", server.ListenAndServe()) // It is never found ready.
	}()
	return counter.Wait()
}

func address(port int) string {
	return net.JoinHostPort(os.Getenv("DORY_BIND_ADDRESS"), strconv.Itoa(port))
}

// startCounter hands its environment, its output and SIGTERM on.
func startCounter(port int) (*exec.Cmd, error) {
	runtime.LockOSThread()                                 // Pdeathsig comes when the thread ends that started the process.
	counter := exec.Command(os.Getenv("IMPOSTOR_COUNTER")) //nolint:gosec,noctx // The test chose it, and it ends with this process.
	counter.Env = append(os.Environ(), "DORY_HEALTH_PORT="+strconv.Itoa(port))
	counter.Stdout, counter.Stderr = os.Stdout, os.Stderr
	counter.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	if err := counter.Start(); err != nil {
		return nil, fmt.Errorf("starting the counter: %w", err)
	}
	go func() {
		for s := range signals {
			_ = counter.Process.Signal(s) // It may have ended by now.
		}
	}()
	return counter, nil
}
