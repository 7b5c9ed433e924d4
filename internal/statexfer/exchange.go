package statexfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// errTimeout is why a request was given up that was not answered in time.
var errTimeout = fmt.Errorf("no answer within %s", requestTimeout)

// call is a request of the contract.
type call struct {
	method, path string
	// body is sent in one piece after the other.
	body [][]byte
	// open requests carry no token.
	open bool
	// repeatable says that the request may be sent again when nobody knows whether it took effect.
	repeatable bool
	// epoch that the caller acts under, which tells whether a refusal is for a higher one; 0 where there is none.
	epoch int64
	// read takes an answer of status 200.
	read func(*http.Response) error
}

// brokenError says that an answer broke off, and may come whole the next time.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return "the answer broke off: " + e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

// exchange sends a call until it is answered, it is of no use or not safe to send it again, or ctx ends.
func (c *Client) exchange(ctx context.Context, to Endpoint, call call) error {
	var waits waits
	for {
		failed := c.try(ctx, to, call)
		if failed == nil {
			return nil
		}
		err := failed.err
		if !failed.final {
			wait, again := waits.next(failed, c.random())
			if again && (call.repeatable || failed.unsent) && c.pause(ctx, wait) {
				continue
			}
			err = unavailable(ctx, err, waits.tries)
		}
		return fmt.Errorf("%s %s%s: %w", call.method, to.URL, call.path, err)
	}
}

// unavailable tells the caller's own end, where that is why there was no further try.
func unavailable(ctx context.Context, last error, tries int) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(last, cause) {
		return fmt.Errorf("%w (tries: %d): %w: %w", ErrUnavailable, tries, cause, last)
	}
	return fmt.Errorf("%w (tries: %d): %w", ErrUnavailable, tries, last)
}

// pause waits, and says whether it waited all the time.
func (c *Client) pause(ctx context.Context, d time.Duration) bool {
	timer := c.clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// try sends a call once.
func (c *Client) try(ctx context.Context, to Endpoint, call call) *failure {
	ctx, cancel := c.withTimeout(ctx)
	defer cancel()
	request, err := newRequest(ctx, to, call)
	if err != nil {
		return &failure{err: err, final: true}
	}
	response, err := c.http.Do(request)
	if err != nil {
		return linkFailure(ctx, err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return c.statusFailure(response, call)
	}
	err = call.read(response)
	var broken *brokenError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &broken):
		return linkFailure(ctx, err)
	}
	return &failure{err: err, final: true}
}

// withTimeout goes by the client's clock, as context.WithTimeout cannot.
func (c *Client) withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := c.clock.NewTimer(requestTimeout)
	go func() {
		defer timer.Stop()
		select {
		case <-timer.C():
			cancel(errTimeout)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

func newRequest(ctx context.Context, to Endpoint, call call) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, call.method, strings.TrimSuffix(to.URL, "/")+call.path, http.NoBody)
	if err != nil {
		return nil, err
	}
	if to.Token != "" && !call.open {
		request.Header.Set("Authorization", "Bearer "+to.Token)
	}
	if call.repeatable {
		// Without a value it is not sent: net/http then repeats the request by itself where a connection that it had kept
		// turns out to be closed.
		request.Header["Idempotency-Key"] = nil
	}
	if call.body == nil {
		return request, nil
	}
	for _, part := range call.body {
		request.ContentLength += int64(len(part))
	}
	if request.ContentLength > MaxStateBytes {
		return nil, fmt.Errorf("%w: a request of %d bytes, the limit is %d", ErrTooLarge, request.ContentLength, MaxStateBytes)
	}
	request.Header.Set("Content-Type", "application/json")
	request.GetBody = func() (io.ReadCloser, error) { return newBody(call.body), nil }
	request.Body = newBody(call.body)
	return request, nil
}

// newBody reads several pieces as one, without making one of them.
func newBody(parts [][]byte) io.ReadCloser {
	readers := make([]io.Reader, len(parts))
	for i, part := range parts {
		readers[i] = bytes.NewReader(part)
	}
	return io.NopCloser(io.MultiReader(readers...))
}

// linkFailure is for a request without an answer, or with a part of one.
func linkFailure(ctx context.Context, err error) *failure {
	if cause := context.Cause(ctx); cause != nil {
		return &failure{err: cause}
	}
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // It would repeat method and URL.
	}
	var op *net.OpError
	return &failure{err: err, soon: true, unsent: errors.As(err, &op) && op.Op == "dial"}
}

// statusFailure is for an answer that is not 200.
func (c *Client) statusFailure(response *http.Response, call call) *failure {
	refusal := readReply(response).refusal(response.StatusCode)
	switch status := response.StatusCode; {
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return &failure{err: fmt.Errorf("%w: status %d: %s", ErrUnauthorized, status, refusal.Message), final: true}
	case status == http.StatusTooManyRequests, status == http.StatusServiceUnavailable:
		after := retryAfter(response.Header.Get("Retry-After"), c.clock.Now())
		return &failure{err: refusal.withoutRefusing(), unsent: true, after: after}
	case status >= http.StatusInternalServerError, status == http.StatusRequestTimeout:
		return &failure{err: refusal.withoutRefusing()}
	}
	refusal.superseded = refusal.Status == http.StatusConflict && call.epoch > 0 && refusal.Position.Epoch > call.epoch
	return &failure{err: refusal, final: true}
}

// retryAfter is how long a processor asks to wait: a number of seconds, or a date.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(text, 10, 32); err == nil {
		return max(0, time.Duration(seconds)*time.Second)
	}
	if date, err := http.ParseTime(text); err == nil {
		return max(0, date.Sub(now))
	}
	return 0
}
