package statexfer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// peers are a source and a target that do what the contract makes them do with the bytes that come and go: read,
// write, and sum what came. What an SDK does to make a text with its sum of a state, or a state of a text, is the SDK's.
func peers(b *testing.B, data []byte) (source, target Endpoint) {
	b.Helper()
	body, sum := []byte(stateBody(string(data))), rawChecksum(data)
	get := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/state" {
			w.Header().Set("X-Dory-Epoch", "7")
			w.Header().Set("X-Dory-Sequence", "42")
			w.Header().Set("X-Dory-Checksum", sum)
			w.Header().Set("X-Dory-Data-Length", strconv.Itoa(len(data)))
		}
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
		_, _ = w.Write(body)
	}
	post := func(w http.ResponseWriter, r *http.Request) {
		text := make([]byte, r.ContentLength)
		if r.URL.Path != "/state" {
			if _, err := io.ReadFull(r.Body, text); err != nil {
				b.Error(err)
			}
			return
		}
		sum, err := readSummed(r.Body, text, len(`{"data":`), len(`{"data":`)+len(data))
		if err != nil {
			b.Error(err)
		}
		_, _ = fmt.Fprintf(w, `{"status":"ok","message":"State restored","checksum":%q}`, sum)
	}
	serve := func() Endpoint {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			map[string]http.HandlerFunc{http.MethodGet: get, http.MethodPost: post}[r.Method](w, r)
		}))
		b.Cleanup(server.Close)
		return Endpoint{URL: server.URL}
	}
	return serve(), serve()
}

// readSummed fills text and sums a part of it as it comes.
func readSummed(body io.Reader, text []byte, from, to int) (string, error) {
	sum := sha256.New()
	for begin := 0; begin < len(text); begin += readBytes {
		end := min(begin+readBytes, len(text))
		if _, err := io.ReadFull(body, text[begin:end]); err != nil {
			return "", err
		}
		if begin < to && end > from {
			sum.Write(text[max(begin, from):min(end, to)])
		}
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func transfer(ctx context.Context, c *Client, source, target Endpoint) error {
	state, err := c.Capture(ctx, source)
	if err != nil {
		return err
	}
	restored, err := c.Restore(ctx, target, state)
	if err != nil {
		return err
	}
	return c.Verify(ctx, target, state, restored)
}

// plainCopy is the least that any program does to bring bytes from here to there.
func plainCopy(ctx context.Context, c *http.Client, source, target Endpoint) error {
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, source.URL+"/plain", http.NoBody)
	if err != nil {
		return err
	}
	response, err := c.Do(get)
	if err != nil {
		return err
	}
	text := make([]byte, response.ContentLength)
	if _, err := io.ReadFull(response.Body, text); err != nil {
		return err
	}
	_ = response.Body.Close()
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, target.URL+"/plain", bytes.NewReader(text))
	if err != nil {
		return err
	}
	if response, err = c.Do(post); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, response.Body)
	_ = response.Body.Close()
	return err
}

var transferred = map[string][]byte{
	"8MiB_one_string":  []byte(`{"payload":"` + strings.Repeat("x", 8<<20-14) + `"}`),
	"8MiB_many_keys":   manyKeys(170_000, func(i int) int { return i }),
	"64KiB_many_keys":  manyKeys(1_350, func(i int) int { return i }),
	"16KiB_one_string": []byte(`{"payload":"` + strings.Repeat("x", 16<<10-14) + `"}`),
}

func BenchmarkTransfer(b *testing.B) {
	for name, data := range transferred {
		b.Run(name, func(b *testing.B) {
			source, target := peers(b, data)
			c := NewClient(ClientConfig{})
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := transfer(b.Context(), c, source, target); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPlainCopy(b *testing.B) {
	for name, data := range transferred {
		b.Run(name, func(b *testing.B) {
			source, target := peers(b, data)
			c := &http.Client{Transport: newTransport()}
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if err := plainCopy(b.Context(), c, source, target); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTransferOverPlain does both in turn, so that whatever else the machine does hits both, and compares medians.
func BenchmarkTransferOverPlain(b *testing.B) {
	for name, data := range transferred {
		b.Run(name, func(b *testing.B) {
			source, target := peers(b, data)
			c := NewClient(ClientConfig{})
			plain := &http.Client{Transport: newTransport()}
			var ours, theirs []time.Duration
			for b.Loop() {
				begun := time.Now()
				if err := transfer(b.Context(), c, source, target); err != nil {
					b.Fatal(err)
				}
				between := time.Now()
				if err := plainCopy(b.Context(), plain, source, target); err != nil {
					b.Fatal(err)
				}
				ours, theirs = append(ours, between.Sub(begun)), append(theirs, time.Since(between))
			}
			slices.Sort(ours)
			slices.Sort(theirs)
			b.ReportMetric(float64(theirs[len(theirs)/2])/float64(ours[len(ours)/2]), "transfer/plain")
			b.ReportMetric(ours[len(ours)/2].Seconds()*1e3, "transfer_p50_ms")
			b.ReportMetric(theirs[len(theirs)/2].Seconds()*1e3, "plain_p50_ms")
		})
	}
}

// BenchmarkCheckpoint is what a checkpoint of 16 KiB costs here: 2,000 processors every 30 s are 67 of these a second.
func BenchmarkCheckpoint(b *testing.B) {
	for name, keep := range map[string]bool{"kept_connection": true, "new_connection": false} {
		b.Run(name, func(b *testing.B) {
			source, _ := peers(b, manyKeys(340, func(i int) int { return i }))
			transport := newTransport()
			transport.DisableKeepAlives = !keep
			c := NewClient(ClientConfig{Transport: transport})
			b.ReportAllocs()
			for b.Loop() {
				state, err := c.Capture(b.Context(), source)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := state.Checksum(); err != nil {
					b.Fatal(err)
				}
				if _, err := state.Document("p").Encode(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
