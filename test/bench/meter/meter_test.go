package meter

import (
	"maps"
	"strings"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(100-i))
	}
	for name, test := range map[string]struct {
		durations []time.Duration
		p         float64
		want      time.Duration
	}{
		"nothing":        {nil, 0.5, 0},
		"one":            {[]time.Duration{7}, 0.99, 7},
		"median":         {hundred, 0.5, 50},
		"p99":            {hundred, 0.99, 99},
		"p99 of few":     {[]time.Duration{1, 2, 3}, 0.99, 3},
		"everything":     {hundred, 1, 100},
		"least":          {hundred, 0, 1},
		"half of a pair": {[]time.Duration{4, 2}, 0.5, 2},
	} {
		if got := Percentile(test.durations, test.p); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

func TestFamilies(t *testing.T) {
	families, err := parse(strings.NewReader(`# TYPE apiserver_request_total counter
apiserver_request_total{verb="POST",resource="pods",subresource="binding"} 3
apiserver_request_total{verb="GET",resource="pods",subresource=""} 5
# TYPE took histogram
took_bucket{le="1"} 2
took_bucket{le="+Inf"} 4
took_sum 9
took_count 4
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := families.Sum("apiserver_request_total", func(l Labels) bool { return writing(l["verb"]) }); got != 3 {
		t.Errorf("%g writes, want 3", got)
	}
	if got := families.Sum("took", nil); got != 4 {
		t.Errorf("a histogram counts %g, want 4", got)
	}
	if got := families.Sum("absent", nil); got != 0 {
		t.Errorf("an absent metric is %g, want 0", got)
	}
	want := map[string]float64{"POST pods/binding": 3, "GET pods": 5}
	if got := families.By("apiserver_request_total", requestName); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestDifference(t *testing.T) {
	got := Difference(map[string]float64{"a": 1, "b": 2}, map[string]float64{"a": 1, "b": 5, "c": 4})
	if want := (map[string]float64{"b": 3, "c": 4}); !maps.Equal(got, want) || Total(got) != 7 {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestParseProcess(t *testing.T) {
	got, err := parseProcess("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n", "42 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0")
	if want := (Process{RSS: 1 << 20, Peak: 2 << 20, CPU: 2 * time.Second}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := parseProcess("", "42 (a) S 1"); err == nil {
		t.Error("half a line is no error")
	}
}

func TestParseCPU(t *testing.T) {
	got, err := parseCPU("cpu  10 0 10 70 10 0 0 0 99 99\ncpu0 1\n")
	if want := (cpuTime{total: 100, idle: 80}); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
}

func TestSumKin(t *testing.T) {
	all := map[int]kin{1: {"init", 0, 9}, 10: {"bench", 1, 1}, 11: {"postgres", 10, 2}, 12: {"postgres", 11, 3}, 20: {"other", 1, 5}}
	got := sumKin(all, 10)
	if want := (map[string]float64{"bench": 1, "postgres": 5}); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	pid, k, err := parseKin("42 (a) b) S 7 2 3 4 5 6 7 8 9 10 150 50 0 0")
	if want := (kin{"a) b", 7, 2}); err != nil || pid != 42 || k != want {
		t.Errorf("%d %+v, %v; want 42 %+v", pid, k, err, want)
	}
}
