// Package figures says what the values of a bench's rounds amount to.
//
// What enters are one value a round; what leaves are words for people: the median, with the smallest and the largest
// value in parentheses, and whether a bound holds. It never fails anything: a bench measures, tests judge.
package figures

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
)

// Median is the middle of at least one value.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// Spread is "median unit (min–max)", each number in the given format, such as "%.2f". The unit may be empty; without
// values it is a dash.
func Spread(format, unit string, values []float64) string {
	if len(values) == 0 {
		return "–"
	}
	if unit != "" {
		unit = " " + unit
	}
	return fmt.Sprintf(format+"%s ("+format+"–"+format+")", Median(values), unit, slices.Min(values), slices.Max(values))
}

// Times is the spread of ratios.
func Times(values []float64) string { return Spread("%.2f", "", values) }

// Verdict is the word for whether a bound holds.
func Verdict(holds bool) string {
	if holds {
		return "within"
	}
	return "beyond"
}

// Order is that of one round: everyone goes first as often as the others, should who was before leave something behind.
func Order[T any](contestants []T, round int) []T {
	first := round % len(contestants)
	return slices.Concat(contestants[first:], contestants[:first])
}

// Machine says on how many cores the figures were made, and how busy those were.
func Machine() (string, error) {
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", err
	}
	minute, _, _ := strings.Cut(string(load), " ")
	return fmt.Sprintf("%d cores (load of the last minute %s)", runtime.NumCPU(), minute), nil
}
