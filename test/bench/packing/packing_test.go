package packing

import (
	"fmt"
	"math"
	"testing"
)

const (
	testItems  = 12000
	testWarmUp = 6000
)

func TestPackingStaysNearTheLowerBound(t *testing.T) {
	bound := LowerBound(Trace(testItems, 1), testWarmUp)
	used, err := Replay(t.Context(), Trace(testItems, 1), testWarmUp, NewDory(0))
	if err != nil {
		t.Fatal(err)
	}
	if over := used.Mean / bound.Mean; over < 1 || over > 1.10 {
		t.Errorf("%.1f nodes, %.3f of the lower bound %.1f", used.Mean, over, bound.Mean)
	}
}

func TestTheTraceIsLikeWhatIsPublished(t *testing.T) {
	items := Trace(testItems, 1)
	var sum, small float64
	for _, item := range items {
		sum += float64(item.MilliCPU) / 1000
		if item.MilliCPU <= 2000 {
			small++
		}
	}
	if mean := sum / testItems; math.Abs(mean-2.28) > 0.1 {
		t.Errorf("%.2f cores on average, want 2.28", mean)
	}
	if share := small / testItems; share < 0.75 {
		t.Errorf("only %.2f have 1 or 2 cores", share)
	}
	if again := Trace(testItems, 1); fmt.Sprint(*again[99].Pod) != fmt.Sprint(*items[99].Pod) {
		t.Error("the same seed gives another trace")
	}
}
