package metrics

import (
	"bytes"
	"strconv"
	"strings"
	"time"
)

// ContentType is the media type of the text format.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Label is a name with its value. The values of a label are few, and none
// comes from a client.
type Label struct{ Name, Value string }

// Text is a page of metrics while it is written. Families come one after the
// other: Counter, Gauge or Duration begins one, Value and Distribution add to it.
type Text struct {
	buffer bytes.Buffer
	name   string
}

// Counter begins a family of counters; by custom the name ends with _total.
func (t *Text) Counter(name, help string) { t.family(name, help, "counter") }

// Gauge begins a family of values that go up and down.
func (t *Text) Gauge(name, help string) { t.family(name, help, "gauge") }

// Durations begins a family of histograms; by custom the name ends with _seconds.
func (t *Text) Durations(name, help string) { t.family(name, help, "histogram") }

func (t *Text) family(name, help, kind string) {
	t.name = name
	t.buffer.WriteString("# HELP " + name + " " + escape(help, false) + "\n# TYPE " + name + " " + kind + "\n")
}

// Value adds a value of the family.
func (t *Text) Value(v float64, labels ...Label) { t.line("", v, labels) }

// Count adds a whole number.
func (t *Text) Count(v uint64, labels ...Label) { t.Value(float64(v), labels...) }

// Distribution adds a histogram of the family.
func (t *Text) Distribution(d Distribution, labels ...Label) {
	sum := uint64(0)
	for i, n := range d.Counts {
		sum += n
		le := "+Inf"
		if i < len(d.Bounds) {
			le = number(d.Bounds[i].Seconds())
		}
		t.line("_bucket", float64(sum), append(labels[:len(labels):len(labels)], Label{"le", le}))
	}
	t.line("_sum", d.Sum.Seconds(), labels)
	t.line("_count", float64(sum), labels)
}

// Seconds adds a duration as a value.
func (t *Text) Seconds(d time.Duration, labels ...Label) { t.Value(d.Seconds(), labels...) }

func (t *Text) line(suffix string, v float64, labels []Label) {
	t.buffer.WriteString(t.name + suffix)
	for i, l := range labels {
		between := ","
		if i == 0 {
			between = "{"
		}
		t.buffer.WriteString(between + l.Name + `="` + escape(l.Value, true) + `"`)
	}
	if len(labels) > 0 {
		t.buffer.WriteByte('}')
	}
	t.buffer.WriteString(" " + number(v) + "\n")
}

// Bytes is the page.
func (t *Text) Bytes() []byte { return t.buffer.Bytes() }

func number(v float64) string { return strconv.FormatFloat(v, 'g', -1, 64) }

var (
	inHelp  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	inLabel = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func escape(s string, quoted bool) string {
	if quoted {
		return inLabel.Replace(s)
	}
	return inHelp.Replace(s)
}
