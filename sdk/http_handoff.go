package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// maxHandoffBytes of a request's body.
const maxHandoffBytes = 4 << 10

// The paths of the handoff, which GET / lists.
const (
	pathHandoff = "/handoff"
	pathQuiesce = "/handoff/quiesce"
	pathPromote = "/handoff/promote"
	pathResume  = "/handoff/resume"
)

// handoffRequest is the body of the handoff's requests.
type handoffRequest struct {
	Epoch *int64 `json:"epoch"`
	// State "saved" lets a standby that holds no state be promoted on what was saved last.
	State string `json:"state"`
}

// handoffBody tells where an instance is.
type handoffBody struct {
	Error    string `json:"error,omitempty"`
	Role     string `json:"role"`
	Epoch    int64  `json:"epoch"`
	Sequence int64  `json:"sequence"`
	Instance string `json:"instance,omitempty"`
}

func (p *Processor) handoffRoutes(mux *http.ServeMux) {
	mux.Handle(pathHandoff, p.authorized(methods{http.MethodGet: p.getHandoff}))
	mux.Handle(pathQuiesce, p.authorized(methods{http.MethodPost: p.postQuiesce}))
	mux.Handle(pathPromote, p.authorized(methods{http.MethodPost: p.postPromote}))
	mux.Handle(pathResume, p.authorized(methods{http.MethodPost: p.postResume}))
}

func (p *Processor) getHandoff(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, p.handoffBody(p.standing()))
}

func (p *Processor) handoffBody(s standing) handoffBody {
	return handoffBody{Role: s.word(), Epoch: s.position.Epoch, Sequence: s.position.Sequence, Instance: p.instance}
}

// postQuiesce waits for the iteration in hand for as long as the client does, but not longer than clients should.
func (p *Processor) postQuiesce(w http.ResponseWriter, r *http.Request) {
	request, ok := readHandoff(w, r)
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), captureTimeout)
	defer cancel()
	final, err := p.quiesce(ctx, *request.Epoch)
	if err != nil {
		writeRefusal(w, err)
		return
	}
	at := final.meta.Position
	p.writeState(w, final, &at)
}

func (p *Processor) postPromote(w http.ResponseWriter, r *http.Request) {
	request, ok := readHandoff(w, r)
	if !ok {
		return
	}
	p.answerTurn(w, r, func(ctx context.Context) (standing, error) {
		return p.promote(ctx, *request.Epoch, request.State == "saved")
	})
}

func (p *Processor) postResume(w http.ResponseWriter, r *http.Request) {
	request, ok := readHandoff(w, r)
	if !ok {
		return
	}
	p.answerTurn(w, r, func(ctx context.Context) (standing, error) { return p.resume(ctx, *request.Epoch) })
}

func (p *Processor) answerTurn(w http.ResponseWriter, r *http.Request, turn func(context.Context) (standing, error)) {
	ctx, cancel := context.WithTimeout(r.Context(), captureTimeout)
	defer cancel()
	now, err := turn(ctx)
	if err != nil {
		writeRefusal(w, err)
		return
	}
	writeJSON(w, http.StatusOK, p.handoffBody(now))
}

// readHandoff answers what is no request itself. The body is read to its end: only then is it noticed that the client
// has gone.
func readHandoff(w http.ResponseWriter, r *http.Request) (request handoffRequest, ok bool) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxHandoffBytes))
	if err == nil {
		err = json.Unmarshal(text, &request)
	}
	switch {
	case err != nil:
		err = fmt.Errorf(`the body must be a JSON object with an epoch, such as {"epoch":7}: %w`, err)
	case request.Epoch == nil || *request.Epoch < 0:
		err = errors.New(`the body must have an epoch from 0 up, such as {"epoch":7}`)
	case request.State != "" && request.State != "saved":
		err = fmt.Errorf(`state is %q: only "saved" is known`, request.State)
	}
	if err != nil {
		writeError(w, statusOf(err, http.StatusBadRequest), err.Error())
	}
	return request, err == nil
}

// writeRefusal tells a caller who was refused where the instance is.
func writeRefusal(w http.ResponseWriter, err error) {
	var refused *refusal
	if !errors.As(err, &refused) {
		writeError(w, statusOf(err, http.StatusInternalServerError), err.Error())
		return
	}
	writeJSON(w, refused.code, handoffBody{
		Error: refused.message, Role: refused.word(), Epoch: refused.position.Epoch, Sequence: refused.position.Sequence,
	})
}
