package statexfer

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

// The contract's paths that this package uses.
const (
	pathState   = "/state"
	pathHandoff = "/handoff"
	pathQuiesce = "/handoff/quiesce"
	pathPromote = "/handoff/promote"
	pathResume  = "/handoff/resume"
)

// RolePrimary is the role of the one instance that works.
const RolePrimary = "primary"

// HandoffStatus is where a processor is in a handoff.
type HandoffStatus struct {
	// Role is standby, primary, quiesced, restoring or stopping.
	Role string
	// Epoch and Sequence are the position of its state.
	Epoch, Sequence int64
	// Instance differs between two processes, also in the same pod.
	Instance string
}

// Status asks a processor where it is in a handoff.
func (c *Client) Status(ctx context.Context, of Endpoint) (HandoffStatus, error) {
	var status HandoffStatus
	err := c.exchange(ctx, of, call{method: http.MethodGet, path: pathHandoff, repeatable: true, read: func(r *http.Response) error {
		reply, err := readOK(r)
		if err == nil && reply.Role == "" {
			err = reply.refusal(r.StatusCode)
		}
		status = HandoffStatus{Role: reply.Role, Epoch: reply.Epoch, Sequence: reply.Sequence, Instance: reply.Instance}
		return err
	}})
	if err != nil {
		return HandoffStatus{}, err
	}
	return status, nil
}

// Quiesce lets a processor finish its iteration and start no other, and returns its final state. A processor that
// cannot finish until the request ends works on.
func (c *Client) Quiesce(ctx context.Context, of Endpoint, epoch int64) (*State, error) {
	call := handoffCall(pathQuiesce, epoch)
	state, err := c.capture(ctx, of, call, strconv.FormatInt(epoch, 10))
	if err != nil {
		return nil, err
	}
	if !state.HasPosition || state.Position.Epoch != epoch {
		return nil, fmt.Errorf("POST %s%s: %w: the final state of epoch %d must tell its sequence and no other epoch, this one tells %s",
			of.URL, pathQuiesce, ErrNotState, epoch, state.Position)
	}
	return state, nil
}

// Promote makes a standby the one that works, under a new epoch. A processor that already works under it is fine.
func (c *Client) Promote(ctx context.Context, who Endpoint, epoch int64) error {
	err := c.exchange(ctx, who, handoffCall(pathPromote, epoch))
	var refusal *Refusal
	if errors.As(err, &refusal) && refusal.Status == http.StatusConflict && refusal.Role == RolePrimary && refusal.Position.Epoch == epoch {
		return nil
	}
	return err
}

// Resume lets a quiesced processor work on under its epoch.
func (c *Client) Resume(ctx context.Context, who Endpoint, epoch int64) error {
	return c.exchange(ctx, who, handoffCall(pathResume, epoch))
}

// handoffCall is for the handoff's requests, all of which answer a repetition as they did the first.
func handoffCall(path string, epoch int64) call {
	return call{
		method: http.MethodPost, path: path, repeatable: true, epoch: epoch,
		body: [][]byte{[]byte(`{"epoch":` + strconv.FormatInt(epoch, 10) + `}`)},
		read: func(r *http.Response) error {
			_, err := readOK(r)
			return err
		},
	}
}
