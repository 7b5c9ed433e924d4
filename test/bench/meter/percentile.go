package meter

import (
	"math"
	"slices"
	"time"
)

// Percentile is the smallest of the durations that at least the share p of them, from 0 to 1, does not exceed.
func Percentile(durations []time.Duration, p float64) time.Duration {
	if len(durations) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(durations))
	rank := int(math.Ceil(p*float64(len(sorted)))) - 1
	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// Milliseconds is a duration as the reports have it, to a tenth.
func Milliseconds(d time.Duration) float64 { return Rounded(float64(d)/float64(time.Millisecond), 1) }

// Rounded is a number with so many digits behind the point.
func Rounded(value float64, digits int) float64 {
	unit := math.Pow10(digits)
	return math.Round(value*unit) / unit
}
