package main

import (
	"fmt"
	"io"
	"strings"
)

// table is printed as Markdown.
type table struct {
	title string
	head  []string
	rows  [][]string
}

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(out io.Writer) {
	fmt.Fprintf(out, "**%s**\n\n| %s |\n|---|%s\n", t.title, strings.Join(t.head, " | "), strings.Repeat("---:|", len(t.head)-1))
	for _, r := range t.rows {
		fmt.Fprintf(out, "| %s |\n", strings.Join(r, " | "))
	}
}

// number writes three digits that count, and a unit's prefix.
func number(v float64) string {
	for _, unit := range []struct {
		size float64
		name string
	}{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if v >= unit.size {
			return digits(v/unit.size) + unit.name
		}
	}
	return digits(v)
}

func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	case v >= 1:
		return strings.TrimSuffix(strings.TrimSuffix(fmt.Sprintf("%.2f", v), "0"), ".0")
	}
	return fmt.Sprintf("%.2g", v)
}

func inBytes(v float64) string { return spaced(number(v), "B") }
func bits(v float64) string    { return spaced(number(8*v), "bit/s") }
func ms(v float64) string      { return digits(1000*v) + " ms" }

// spaced puts a unit behind a number: 12.3 MB.
func spaced(n, unit string) string {
	if last := n[len(n)-1]; last >= 'A' {
		return n[:len(n)-1] + " " + string(last) + unit
	}
	return n + " " + unit
}

// whole rounds up what there are no halves of.
func whole(v float64) string {
	n := int64(v)
	if float64(n) < v {
		n++
	}
	return number(float64(max(1, n)))
}
