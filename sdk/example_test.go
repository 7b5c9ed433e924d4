package sdk_test

import (
	"context"
	"fmt"
	"net"
	"strconv"

	"github.com/dory-io/dory/sdk"
)

// A processor that counts. Started again, it goes on counting.
func Example() {
	p, err := sdk.New(sdk.WithBackend(sdk.NoBackend()), sdk.WithEnv(func(name string) (string, bool) {
		value, ok := map[string]string{"DORY_HEALTH_PORT": freePort()}[name]
		return value, ok
	}))
	if err != nil {
		fmt.Println(err)
		return
	}
	count := sdk.Var(p, "count", 0)
	ctx, stop := context.WithCancel(context.Background())
	err = p.Run(ctx, func(context.Context) error {
		count.Set(count.Get() + 1)
		if count.Get() == 3 {
			stop()
		}
		return nil
	})
	fmt.Println(count.Get() >= 3, p.Sequence() == int64(count.Get()), err)
	// Output: true true <nil>
}

// freePort keeps the example from disturbing what else runs on the machine.
func freePort() string {
	var config net.ListenConfig
	l, err := config.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return "8080"
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// An iteration that waits for input should also wait for Yield, so that its state can be read meanwhile.
func ExampleYield() {
	input := make(chan string)
	_ = func(ctx context.Context) error {
		select {
		case message := <-input:
			fmt.Println(message)
			return nil
		case <-sdk.Yield(ctx):
			return sdk.ErrIdle
		}
	}
}
