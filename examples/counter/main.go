// Counter is a processor whose output proves what happened to its state. Every iteration counts one up and extends a hash
// chain, and prints both as a line of JSON; "counter verify" reads such lines and says whether an iteration is lost or
// repeated, whether two instances acted at once, and how long the pauses of its moves were.
//
//	COUNTER_INTERVAL       pause between iterations, default 1s
//	COUNTER_PAYLOAD_BYTES  further bytes of state, default 0
//	COUNTER_FLUSH_INTERVAL  for how long lines are held back to be written together, default 0s: each is written at once
//	COUNTER_STATE_VERSION  version of the state's format, default none; the state of another version is refused
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/dory-io/dory/sdk"
)

const usage = `usage: counter                          run the processor
       counter verify [--allow-unlogged] [--sort] < lines
                                        prove that no iteration is lost or repeated, and no two instances acted at once`

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	switch {
	case len(args) == 0:
		return count(ctx, stdout, stderr)
	case args[0] == "verify":
		return verifyCommand(args[1:], stdin, stdout, stderr)
	}
	say(stderr, fmt.Sprintf("counter: unknown command %q\n%s", args[0], usage))
	return 2
}

// say writes for a person, who is not there if it fails.
func say(stderr io.Writer, words ...any) {
	fmt.Fprintln(stderr, words...) //nolint:errcheck // See above.
}

func count(ctx context.Context, stdout, stderr io.Writer) int {
	config, err := readConfig(os.LookupEnv)
	if err != nil {
		say(stderr, "counter:", err)
		return 2
	}
	p, err := sdk.New(config.options()...)
	if err != nil {
		say(stderr, "counter:", err)
		return 2
	}
	lines, end := config.output(stdout)
	if err := errors.Join(p.Run(ctx, newCounter(p, config, lines).iterate), end()); err != nil {
		say(stderr, "counter:", err)
		return 1
	}
	return 0
}
