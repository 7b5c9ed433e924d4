// Plain is a processor that knows the state endpoints of the contract and no handoff, as one by a public SDK: it acts as soon as it
// runs.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// plain counts.
type plain struct {
	mu sync.Mutex
	n  int
}

type document struct {
	Version string         `json:"state_version"`
	Data    map[string]int `json:"data"`
}

func (p *plain) state(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Method == http.MethodGet {
		_ = json.NewEncoder(w).Encode(document{Version: "1.0", Data: map[string]int{"n": p.n}}) // The client is gone, and asks again.
		return
	}
	var d document
	if err := json.NewDecoder(r.Body).Decode(&d); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p.n = d.Data["n"]
	fmt.Fprint(w, `{"status":"ok","message":"State restored"}`)
}

func (p *plain) count() {
	for range time.Tick(10 * time.Millisecond) {
		p.mu.Lock()
		p.n++
		fmt.Println(p.n)
		p.mu.Unlock()
	}
}

func main() {
	p := &plain{}
	mux := http.NewServeMux()
	for _, path := range []string{"/health", "/healthz", "/ready", "/prestop"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"status":"ok"}`) })
	}
	mux.HandleFunc("/state", p.state)
	go p.count()
	server := http.Server{
		Addr:    net.JoinHostPort(os.Getenv("DORY_BIND_ADDRESS"), os.Getenv("DORY_HEALTH_PORT")),
		Handler: mux, ReadHeaderTimeout: time.Minute,
	}
	go func() {
		fmt.Fprintln(os.Stderr, "plain:", server.ListenAndServe())
		os.Exit(1)
	}()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	<-ended
}
