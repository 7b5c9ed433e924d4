package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// histogram is one of Prometheus' native ones, of seconds. Its buckets grow by less than a tenth each.
type histogram struct {
	count uint64
	zero  uint64
	// limits are the upper ones, ascending.
	limits []float64
	counts []uint64
}

// path is the label of the webhook's series.
const path = "/evictions"

// scrapeHistogram reads the webhook's series of a metric. Native histograms are served as protocol buffers alone.
func scrapeHistogram(ctx context.Context, url, name string) (h histogram, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return h, err
	}
	format := expfmt.NewFormat(expfmt.TypeProtoDelim)
	request.Header.Set("Accept", string(format))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return h, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	decoder := expfmt.NewDecoder(bufio.NewReader(response.Body), format)
	for {
		family := &dto.MetricFamily{}
		if err := decoder.Decode(family); errors.Is(err, io.EOF) {
			return h, fmt.Errorf("there is no metric %s at %s", name, url)
		} else if err != nil {
			return h, fmt.Errorf("reading metrics: %w", err)
		}
		if family.GetName() == name {
			return newHistogram(family)
		}
	}
}

func newHistogram(family *dto.MetricFamily) (histogram, error) {
	i := slices.IndexFunc(family.GetMetric(), func(m *dto.Metric) bool {
		return slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == path })
	})
	if i < 0 || family.GetMetric()[i].GetHistogram().Schema == nil {
		return histogram{}, fmt.Errorf("metric %s has no series with a label of value %s, or is no native histogram", family.GetName(), path)
	}
	native := family.GetMetric()[i].GetHistogram()
	h := histogram{count: native.GetSampleCount(), zero: native.GetZeroCount()}
	base := math.Exp2(math.Exp2(-float64(native.GetSchema())))
	index, count, next := int32(0), int64(0), 0
	for _, span := range native.GetPositiveSpan() {
		index += span.GetOffset()
		for range span.GetLength() {
			count += native.GetPositiveDelta()[next]
			next++
			h.limits, h.counts = append(h.limits, math.Pow(base, float64(index))), append(h.counts, uint64(count)) //nolint:gosec // a count is not negative
			index++
		}
	}
	return h, nil
}

// quantile is the upper limit of the bucket that it falls into.
func (h histogram) quantile(q float64) time.Duration {
	rank := uint64(math.Ceil(q * float64(h.count)))
	seen := h.zero
	if seen >= rank {
		return 0
	}
	for i, count := range h.counts {
		if seen += count; seen >= rank {
			return time.Duration(h.limits[i] * float64(time.Second))
		}
	}
	return 0
}
