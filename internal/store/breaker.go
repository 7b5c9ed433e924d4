package store

import (
	"github.com/go-logr/logr"
	"github.com/sony/gobreaker/v2"
)

// newBreaker makes the breaker that stands before every query. It measures time by the real clock.
func newBreaker(cfg Config, m *metrics, log logr.Logger) *gobreaker.CircuitBreaker[struct{}] {
	m.breakerState.WithLabelValues(component).Set(stateValue(gobreaker.StateClosed))
	return gobreaker.NewCircuitBreaker[struct{}](gobreaker.Settings{
		Name:         component,
		Timeout:      cfg.BreakerOpen,
		ReadyToTrip:  func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= cfg.BreakerFailures },
		IsSuccessful: func(err error) bool { return !classify(err).unavailable() },
		// A caller that gave up says nothing about the database, neither good nor bad.
		IsExcluded: func(err error) bool { return classify(err) == kindCancelled },
		OnStateChange: func(name string, from, to gobreaker.State) {
			m.breakerState.WithLabelValues(name).Set(stateValue(to))
			m.breakerTransitions.WithLabelValues(name, stateName(from), stateName(to)).Inc()
			log.Info("Circuit breaker changed state", "component", name, "from", stateName(from), "to", stateName(to))
		},
	})
}

// stateValue is the value of dory_circuit_breaker_state.
func stateValue(s gobreaker.State) float64 {
	switch s {
	case gobreaker.StateClosed:
		return 0
	case gobreaker.StateHalfOpen:
		return 1
	case gobreaker.StateOpen:
		return 2
	}
	return -1
}

// stateName is the label value of a state.
func stateName(s gobreaker.State) string {
	switch s {
	case gobreaker.StateClosed:
		return "closed"
	case gobreaker.StateHalfOpen:
		return "half_open"
	case gobreaker.StateOpen:
		return "open"
	}
	return "unknown"
}
