package statexfer

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// What a Client's methods fail with, by errors.Is. Each error also names the request, the value that is wrong, and
// what the processor said about it.
var (
	// ErrNotState says that a processor answered 200 with something that is no state: an error (some SDKs do so when
	// the processor's own code failed), no data or state_version, data that is no object, or no JSON at all. Who took
	// it for a state would lose the real one.
	ErrNotState = errors.New("the answer is no processor state")
	// ErrUnauthorized says that the processor does not know the token.
	ErrUnauthorized = errors.New("the processor does not accept the token")
	// ErrRefused says that the processor understood and said no; asking again would not help. Refusal has the details.
	ErrRefused = errors.New("the processor refused")
	// ErrUnavailable says that no answer could be had until the caller's context ended or the tries were used up. What was
	// asked for may have happened nevertheless.
	ErrUnavailable = errors.New("the processor is not available")
	// ErrMismatch says that a processor does not hold the state that it should hold.
	ErrMismatch = errors.New("the states differ")
	// ErrSuperseded says that the processor has seen a higher epoch than the caller's, which is therefore out of date. Such
	// an error is ErrRefused too.
	ErrSuperseded = errors.New("the processor has seen a higher epoch")
)

// Refusal is what a processor says when it refuses; errors.As finds it in what is ErrRefused.
type Refusal struct {
	// Status is the HTTP status.
	Status int
	// Message is the processor's own, shortened.
	Message string
	// Role and Position are what the processor says of itself, where it does.
	Role     string
	Position Position

	superseded bool
}

// Error is the processor's message.
func (r *Refusal) Error() string {
	parts := []string{fmt.Sprintf("%v with status %d", ErrRefused, r.Status)}
	if r.Message != "" {
		parts = append(parts, r.Message)
	}
	if r.Role != "" {
		parts = append(parts, fmt.Sprintf("it is %s at %s", r.Role, r.Position))
	}
	return strings.Join(parts, ": ")
}

// Is makes a Refusal what its status means.
func (r *Refusal) Is(target error) bool {
	switch target {
	case ErrRefused:
		return true
	case ErrSuperseded:
		return r.superseded
	case ErrTooLarge:
		return r.Status == http.StatusRequestEntityTooLarge
	}
	return false
}
