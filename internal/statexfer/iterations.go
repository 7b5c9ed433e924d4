package statexfer

import (
	"encoding/json"

	"github.com/dory-io/dory/internal/message"
)

// Iterations is how a processor's iterations went lately. It travels among the metrics of an ApplicationState, for which the
// contract leaves room.
type Iterations struct {
	// Known is false where the processor's SDK does not tell.
	Known bool
	// Failures is how many in a row have failed up to now.
	Failures int64
	// Error is the last one's, made one short line; empty where none failed.
	Error string
}

// iterationMetrics are the members of metrics that tell it.
type iterationMetrics struct {
	Failures *int64 `json:"iteration_failures,omitempty"`
	Error    string `json:"iteration_error,omitempty"`
}

// Metrics is what an ApplicationState tells of the iterations.
func (i Iterations) Metrics() map[string]json.RawMessage {
	metrics := map[string]json.RawMessage{}
	told := iterationMetrics{Failures: &i.Failures, Error: message.Line(i.Error, maxMessageBytes)}
	text, err := json.Marshal(told)
	if !i.Known || err != nil || json.Unmarshal(text, &metrics) != nil {
		return map[string]json.RawMessage{}
	}
	return metrics
}

// iterationsIn reads them off the metrics. What has another form is another SDK's, and says nothing.
func iterationsIn(metrics []byte) Iterations {
	var told iterationMetrics
	if len(metrics) == 0 || len(metrics) > maxReplyBytes || json.Unmarshal(metrics, &told) != nil || told.Failures == nil || *told.Failures < 0 {
		return Iterations{}
	}
	return Iterations{Known: true, Failures: *told.Failures, Error: message.Line(told.Error, maxMessageBytes)}
}
