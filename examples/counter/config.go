package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/dory-io/dory/sdk"
)

const maxPayloadBytes = 10_000_000

type config struct {
	interval      time.Duration
	flushInterval time.Duration
	payloadBytes  int
	stateVersion  string
}

// readConfig names everything that is wrong.
func readConfig(lookup func(string) (string, bool)) (config, error) {
	c := config{interval: time.Second}
	errs := []error{readDuration(lookup, "COUNTER_INTERVAL", &c.interval), readDuration(lookup, "COUNTER_FLUSH_INTERVAL", &c.flushInterval)}
	if text, ok := lookup("COUNTER_PAYLOAD_BYTES"); ok && text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 || n > maxPayloadBytes {
			errs = append(errs, fmt.Errorf("COUNTER_PAYLOAD_BYTES is %q, not a whole number from 0 to %d", text, maxPayloadBytes))
		}
		c.payloadBytes = n
	}
	c.stateVersion, _ = lookup("COUNTER_STATE_VERSION")
	return c, errors.Join(errs...)
}

// readDuration leaves what is not set as it is.
func readDuration(lookup func(string) (string, bool), name string, into *time.Duration) error {
	text, ok := lookup(name)
	if !ok || text == "" {
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return fmt.Errorf("%s is %q, not a duration from 0s up, such as 250ms", name, text)
	}
	*into = d
	return nil
}

// options of the processor. It knows no other version of its state than its own.
func (c config) options() []sdk.Option {
	options := []sdk.Option{sdk.WithInterval(c.interval)}
	if c.stateVersion != "" {
		options = append(options, sdk.WithStateVersion(c.stateVersion, nil))
	}
	return options
}
