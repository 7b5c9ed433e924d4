package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/dory-io/dory/sdk"
)

// line is the output of one iteration.
type line struct {
	N     int64  `json:"n"`
	Hash  string `json:"hash"`
	Epoch int64  `json:"epoch"`
	Pod   string `json:"pod"`
	// Sequence of the state once the iteration is committed.
	Sequence int64 `json:"sequence"`
	// Time and Nanos are the same moment of this machine's clock, Nanos since 1970: what pauses are computed from.
	Time  string `json:"time"`
	Nanos int64  `json:"ns"`
}

type counter struct {
	p       *sdk.Processor
	config  config
	out     io.Writer
	n       *sdk.Variable[int64]
	hash    *sdk.Variable[string]
	payload *sdk.Variable[string]
}

func newCounter(p *sdk.Processor, c config, out io.Writer) *counter {
	return &counter{
		p: p, config: c, out: out,
		n:       sdk.Var(p, "n", int64(0)),
		hash:    sdk.Var(p, "hash", ""),
		payload: sdk.Var(p, "payload", ""),
	}
}

// iterate prints in the same iteration in which it counts, so that an iteration that is undone and made again shows as
// a repeated line.
func (c *counter) iterate(context.Context) error {
	n := c.n.Get() + 1
	hash := chain(c.hash.Get(), n)
	c.n.Set(n)
	c.hash.Set(hash)
	if len(c.payload.Get()) != c.config.payloadBytes {
		c.payload.Set(strings.Repeat("x", c.config.payloadBytes))
	}
	now := time.Now()
	text, err := json.Marshal(line{
		N: n, Hash: hash, Epoch: c.p.Epoch(), Pod: c.p.PodName(), Sequence: c.p.Sequence() + 1,
		Time: now.UTC().Format(time.RFC3339Nano), Nanos: now.UnixNano(),
	})
	if err != nil {
		return fmt.Errorf("writing the line of iteration %d: %w", n, err)
	}
	// One write, so that a line is whole or not there.
	if _, err := c.out.Write(append(text, '\n')); err != nil {
		return fmt.Errorf("writing the line of iteration %d: %w", n, err)
	}
	return nil
}

// chain is the hash of iteration n, which follows from all before it.
func chain(previous string, n int64) string {
	sum := sha256.Sum256([]byte(previous + strconv.FormatInt(n, 10)))
	return hex.EncodeToString(sum[:])
}
