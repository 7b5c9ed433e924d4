package statexfer

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/dory-io/dory/internal/message"
)

const (
	// maxReplyBytes of an answer that carries no state.
	maxReplyBytes = 64 << 10
	// maxMessageBytes of what a processor says are passed on.
	maxMessageBytes = 300
)

// reply is every answer that carries no state.
type reply struct {
	Status   string `json:"status"`
	Error    string `json:"error"`
	Message  string `json:"message"`
	Role     string `json:"role"`
	Epoch    int64  `json:"epoch"`
	Sequence int64  `json:"sequence"`
	Instance string `json:"instance"`
	Checksum string `json:"checksum"`
	Received string `json:"received"`
	Migrated bool   `json:"migrated"`

	text  []byte
	valid bool
	err   error
}

// readReply reads the whole of a short answer, which also keeps its connection usable.
func readReply(response *http.Response) reply {
	var r reply
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReplyBytes))
	if err != nil {
		r.err = &brokenError{err}
	}
	r.valid = json.Unmarshal(text, &r) == nil
	r.text = text
	return r
}

// readOK reads an answer of status 200, with which some SDKs say no too. An empty one says yes.
func readOK(response *http.Response) (reply, error) {
	r := readReply(response)
	if r.err != nil {
		return r, r.err
	}
	if len(r.text) > 0 && (!r.valid || r.Error != "") {
		return r, r.refusal(response.StatusCode)
	}
	return r, nil
}

func (r reply) refusal(status int) *Refusal {
	said := cmp.Or(r.Error, r.Message, string(r.text))
	return &Refusal{Status: status, Message: message.Line(said, maxMessageBytes), Role: r.Role, Position: Position{r.Epoch, r.Sequence}}
}

// withoutRefusing is for statuses that do not mean a refusal.
func (r *Refusal) withoutRefusing() error {
	return fmt.Errorf("status %d: %s", r.Status, r.Message)
}
