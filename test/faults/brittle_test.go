package faults

import (
	"fmt"
	"strings"

	"github.com/dory-io/dory/test/faults/failpoints"
)

const (
	// clockVariable names the file that says by how many seconds a brittle operator's clock is wrong.
	clockVariable = "FAULTS_CLOCK"
	// namespaceVariable confines a brittle operator to a namespace, so that several can work side by side: it sees no other,
	// has a lease of its own, and looks often whether that is free.
	namespaceVariable = "FAULTS_NAMESPACE"
	// failpointsVariable is gofail's: FAILPOINT=TERM.
	failpointsVariable = "GOFAIL_FAILPOINTS"
)

// brittleEdits are what failpoints cannot do to an operator.
var brittleEdits = map[string]failpoints.Edit{
	"cmd/dory-operator/operator.go": func(source string) (string, error) {
		for _, edit := range [][2]string{
			{"clock: clock.RealClock{}}", "clock: jumpingClock{}}"},
			{"cacheOptions(),", "confined(cacheOptions()),"},
			{" leaseName,", " leaseName + confinedTo(),"},
			{"LeaderElectionReleaseOnCancel: true,", "LeaderElectionReleaseOnCancel: true, RetryPeriod: retryPeriod(),"},
		} {
			if strings.Count(source, edit[0]) != 1 {
				return "", fmt.Errorf("%s is not there once, as it was: look at this anew", edit[0])
			}
			source = strings.Replace(source, edit[0], edit[1], 1)
		}
		return source, nil
	},
	"cmd/dory-operator/brittle_clock.go": func(string) (string, error) { return jumpingClock, nil },
	"cmd/dory-operator/brittle_namespace.go": func(string) (string, error) {
		return `package main

import (
	"os"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/cache"
)

func confinedTo() string { return os.Getenv("` + namespaceVariable + `") }

func confined(options cache.Options) cache.Options {
	if namespace := confinedTo(); namespace != "" {
		options.DefaultNamespaces = map[string]cache.Config{namespace: {}}
	}
	return options
}

func retryPeriod() *time.Duration {
	period := 2 * time.Second
	if confinedTo() != "" {
		period = 200 * time.Millisecond
	}
	return &period
}
`, nil
	},
}
