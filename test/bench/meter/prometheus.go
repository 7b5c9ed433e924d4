package meter

import (
	"context"
	"fmt"
	"io"
	"maps"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/dory-io/dory/test/bench/rig"
)

// Families are the metrics of one scrape.
type Families map[string]*dto.MetricFamily

// Scrape reads the metrics at a URL.
func Scrape(ctx context.Context, url string) (Families, error) {
	body, err := rig.Get(ctx, url)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }() // it was read
	return parse(body)
}

func parse(text io.Reader) (Families, error) {
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(text)
	if err != nil {
		return nil, fmt.Errorf("reading metrics: %w", err)
	}
	return families, nil
}

// Labels are those of one series.
type Labels map[string]string

// Sum adds the values of a metric's series that a filter lets through; nil lets all through. Of a histogram it adds
// the counts.
func (f Families) Sum(name string, filter func(Labels) bool) float64 {
	sum := 0.0
	f.each(name, func(labels Labels, value float64) {
		if filter == nil || filter(labels) {
			sum += value
		}
	})
	return sum
}

// By adds the values of a metric's series by what a function makes of their labels.
func (f Families) By(name string, key func(Labels) string) map[string]float64 {
	sums := map[string]float64{}
	f.each(name, func(labels Labels, value float64) { sums[key(labels)] += value })
	return sums
}

func (f Families) each(name string, visit func(Labels, float64)) {
	for _, metric := range f[name].GetMetric() {
		labels := Labels{}
		for _, pair := range metric.GetLabel() {
			labels[pair.GetName()] = pair.GetValue()
		}
		visit(labels, valueOf(metric))
	}
}

func valueOf(metric *dto.Metric) float64 {
	switch {
	case metric.GetCounter() != nil:
		return metric.GetCounter().GetValue()
	case metric.GetGauge() != nil:
		return metric.GetGauge().GetValue()
	case metric.GetHistogram() != nil:
		return float64(metric.GetHistogram().GetSampleCount())
	default:
		return metric.GetUntyped().GetValue()
	}
}

// Difference is what was added to counters between two moments; what did not change is left out.
func Difference(before, after map[string]float64) map[string]float64 {
	added := maps.Clone(after)
	for key, value := range before {
		added[key] -= value
	}
	maps.DeleteFunc(added, func(_ string, value float64) bool { return value == 0 })
	return added
}

// Total adds up counters.
func Total(counters map[string]float64) float64 {
	sum := 0.0
	for _, value := range counters {
		sum += value
	}
	return sum
}
