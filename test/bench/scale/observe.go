package main

import (
	"context"

	"github.com/dory-io/dory/test/bench/meter"
)

// observed is the operator and its statements at one moment.
type observed struct {
	meter.Operator
	statements map[string]float64
}

func (b *bench) observeOperator(ctx context.Context) (observed, error) {
	operator, err := meter.ReadOperator(ctx, b.process)
	if err != nil {
		return observed{}, err
	}
	statements, err := b.database.Statements(ctx)
	return observed{operator, statements}, err
}

// requests are the operator's, by method and status code.
func (o observed) requests() map[string]float64 {
	return o.Families.By("rest_client_requests_total", func(l meter.Labels) string { return l["method"] + " " + l["code"] })
}
