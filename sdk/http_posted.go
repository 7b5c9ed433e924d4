package sdk

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/dory-io/dory/internal/statexfer"
)

// posted is the body of POST /state, taken apart.
type posted struct {
	data     json.RawMessage
	members  []member
	position Position
	// version of the data's format, which the processor's author chose.
	version string
}

// readBody makes room once, where the client says for how much.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body := http.MaxBytesReader(w, r.Body, statexfer.MaxStateBytes)
	if r.ContentLength < 0 || r.ContentLength > statexfer.MaxStateBytes {
		return io.ReadAll(body)
	}
	text := make([]byte, r.ContentLength)
	_, err := io.ReadFull(body, text)
	return text, err
}

// parsePosted finds the state in a body: the value of data if there is one, else the whole. What is said about a
// state is said in headers, or beside data.
func parsePosted(body []byte, header http.Header, known func(string) []byte) (posted, error) {
	s := splitter{text: body, known: known}
	var found posted
	var rest []member
	wrapped := false
	err := s.each(func(key string) error {
		if key == "data" {
			wrapped = true
			return found.take(&s)
		}
		text, err := s.value(key)
		rest = append(rest, member{key, text})
		return err
	})
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return posted{}, err
	}
	if !wrapped {
		found.data, found.members = body, rest
		return found, found.describe(header, nil)
	}
	return found, found.describe(header, rest)
}

// take reads the members of data in the same pass.
func (p *posted) take(s *splitter) (err error) {
	from := s.pos
	p.members, err = s.object()
	p.data = s.text[from:s.pos:s.pos]
	return err
}

func (p *posted) describe(header http.Header, beside []member) error {
	values := make(map[string]json.RawMessage, len(beside))
	for _, m := range beside {
		if !json.Valid(m.text) {
			return fmt.Errorf("%w: the value of %q is no JSON", errNoObject, m.key)
		}
		values[m.key] = m.text
	}
	var err error
	if p.position.Epoch, err = numberOf("epoch", header.Get(headerEpoch), values["epoch"]); err != nil {
		return err
	}
	if p.position.Sequence, err = numberOf("sequence", header.Get(headerSequence), values["sequence"]); err != nil {
		return err
	}
	p.version = header.Get(headerDataVersion)
	if text := values["data_version"]; p.version == "" && text != nil {
		if err := json.Unmarshal(text, &p.version); err != nil {
			return fmt.Errorf("data_version %.100s is no text", text)
		}
	}
	return nil
}

func numberOf(name, text string, value json.RawMessage) (int64, error) {
	if text == "" && string(value) != "null" {
		text = string(value)
	}
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("%s %q is no whole number from 0 up", name, text)
	}
	return n, nil
}
