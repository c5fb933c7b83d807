package metrics

import (
	"testing"
	"time"
)

func TestText(t *testing.T) {
	h := NewHistogram(time.Millisecond, time.Second)
	for _, d := range []time.Duration{-1, 0, time.Millisecond, time.Millisecond + 1, time.Hour} {
		h.Observe(d)
	}
	text := &Text{}
	text.Counter("a_total", "Line one,\nline two \\ \"quoted\".")
	text.Count(1<<62, Label{"x", "a\\b\"c\nd"}, Label{"y", ""})
	text.Gauge("b", "B.")
	text.Value(-0.5)
	text.Durations("c_seconds", "C.")
	text.Distribution(h.Distribution(), Label{"route", "r"})
	want := `# HELP a_total Line one,\nline two \\ "quoted".
# TYPE a_total counter
a_total{x="a\\b\"c\nd",y=""} 4.611686018427388e+18
# HELP b B.
# TYPE b gauge
b -0.5
# HELP c_seconds C.
# TYPE c_seconds histogram
c_seconds_bucket{route="r",le="0.001"} 3
c_seconds_bucket{route="r",le="1"} 4
c_seconds_bucket{route="r",le="+Inf"} 5
c_seconds_sum{route="r"} 3600.002000001
c_seconds_count{route="r"} 5
`
	if got := string(text.Bytes()); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	h := NewHistogram(time.Millisecond, time.Second)
	if n := testing.AllocsPerRun(100, func() { h.Observe(time.Second) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
