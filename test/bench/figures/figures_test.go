package figures

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian_IsTheMiddleOfTheSortedValues(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{7}, 7},
		{[]float64{9, 1, 5}, 5},
		{[]float64{40, 10, 20, 30}, 25},
	} {
		if got := Median(test.values); got != test.want {
			t.Errorf("median of %v: got %v, want %v", test.values, got, test.want)
		}
	}
}

func TestSpread_ShowsTheMedianBetweenTheExtremes(t *testing.T) {
	for _, test := range []struct {
		format, unit string
		values       []float64
		want         string
	}{
		{"%.3f", "s", []float64{1.5, 1, 3}, "1.500 s (1.000–3.000)"},
		{"%.0f", "", []float64{2, 4}, "3 (2–4)"},
		{"%.0f", "s", nil, "–"},
	} {
		if got := Spread(test.format, test.unit, test.values); got != test.want {
			t.Errorf("spread of %v: got %q, want %q", test.values, got, test.want)
		}
	}
}

func TestOrder_EveryoneGoesFirstEquallyOften(t *testing.T) {
	var got [][]string
	for round := range 3 {
		got = append(got, Order([]string{"a", "b", "c"}, round))
	}
	want := [][]string{{"a", "b", "c"}, {"b", "c", "a"}, {"c", "a", "b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("orders (-want +got):\n%s", diff)
	}
}
