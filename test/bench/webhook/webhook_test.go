package main

import (
	"errors"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// TestQuantiles is against a registry as the operator has it.
func TestQuantiles(t *testing.T) {
	registry := prometheus.NewRegistry()
	observed := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "latency_seconds", NativeHistogramBucketFactor: 1.1, Buckets: prometheus.DefBuckets}, []string{"webhook"})
	registry.MustRegister(observed)
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	defer server.Close()
	for _, ms := range rand.New(rand.NewPCG(1, 2)).Perm(1000) {
		observed.WithLabelValues(path).Observe(float64(ms+1) / 1000)
	}
	h, err := scrapeHistogram(t.Context(), server.URL, "latency_seconds")
	if err != nil || h.count != 1000 {
		t.Fatalf("%+v, %v", h, err)
	}
	for q, want := range map[float64]time.Duration{p50: 500 * time.Millisecond, p99: 990 * time.Millisecond} {
		if got := h.quantile(q); got < want || got > want*11/10 {
			t.Errorf("%g: %s, want %s or up to a tenth more", q, got, want)
		}
	}
	if _, err := scrapeHistogram(t.Context(), server.URL, "other"); err == nil || !strings.Contains(err.Error(), "no metric other") {
		t.Errorf("%v", err)
	}
}

func TestExpectedAnswers(t *testing.T) {
	again := apierrors.NewTooManyRequestsError("Eviction triggered evacuation of cam")
	if err := expected("p", again); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"let go": nil, "an error": errors.New("evacuation"), "a budget": apierrors.NewTooManyRequestsError("a budget forbids it"),
	} {
		if expected("p", err) == nil {
			t.Errorf("%s is taken for the answer", name)
		}
	}
}

func TestFlagsAreChecked(t *testing.T) {
	good := func() *bench { return &bench{processors: 2, evictions: 1, connections: 1, nodes: 1} }
	if err := good().validate(); err != nil {
		t.Error(err)
	}
	for flag, change := range map[string]func(*bench){
		"-evictions":   func(b *bench) { b.evictions = 3 },
		"-others":      func(b *bench) { b.others = -1 },
		"-connections": func(b *bench) { b.connections = 0 },
		"-nodes":       func(b *bench) { b.nodes = 0 },
	} {
		bad := good()
		change(bad)
		if err := bad.validate(); err == nil || !strings.HasPrefix(err.Error(), flag+"=") {
			t.Errorf("%s: %v", flag, err)
		}
	}
}
