package statexfer

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestIterationsInMetrics(t *testing.T) {
	for name, test := range map[string]struct {
		metrics string
		want    Iterations
	}{
		"nothing":         {"", Iterations{}},
		"of another SDK":  {`{"frames":3}`, Iterations{}},
		"no object":       {`[1]`, Iterations{}},
		"fine":            {`{"iteration_failures":0}`, Iterations{Known: true}},
		"failing":         {`{"iteration_failures":9,"iteration_error":"sensor\nnot reachable","frames":{"a":[1]}}`, Iterations{Known: true, Failures: 9, Error: "sensor not reachable"}},
		"not a count":     {`{"iteration_failures":"many"}`, Iterations{}},
		"less than none":  {`{"iteration_failures":-1}`, Iterations{}},
		"more than fits":  {`{"iteration_failures":1,"x":"` + strings.Repeat("x", maxReplyBytes) + `"}`, Iterations{}},
		"a long sentence": {`{"iteration_failures":1,"iteration_error":"` + strings.Repeat("ä", 1000) + `"}`, Iterations{Known: true, Failures: 1, Error: strings.Repeat("ä", 148) + "…"}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := iterationsIn([]byte(test.metrics)); got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}

func TestIterationsComeThrough(t *testing.T) {
	for _, i := range []Iterations{{}, {Known: true}, {Known: true, Failures: 1 << 40, Error: `it said "no"`}} {
		text, err := json.Marshal(i.Metrics())
		if err != nil {
			t.Fatal(err)
		}
		if got := iterationsIn(text); got != i {
			t.Errorf("%s became %+v, want %+v", text, got, i)
		}
	}
	if text, err := json.Marshal(Iterations{}.Metrics()); err != nil || string(text) != "{}" {
		t.Errorf("%s, %v: nothing to tell is the contract's {}", text, err)
	}
}
