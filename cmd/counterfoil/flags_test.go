package main

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestFlagsStandAnywhere(t *testing.T) {
	f := newFlags()
	var name textValue
	var list listValue
	var yes boolValue
	f.add(&name, "name", "NAME", "")
	f.add(&list, "list", "L", "")
	f.add(&yes, "yes", "", "")
	rest, err := f.parse([]string{"one", "--name", "x", "two", "-list=a,b", "--yes", "-", "--list", "c", "--", "--name"})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"one", "two", "-", "--name"}; !slices.Equal(rest, want) {
		t.Errorf("arguments %q, want %q", rest, want)
	}
	if name != "x" || !bool(yes) || !slices.Equal(list, []string{"a", "b", "c"}) {
		t.Errorf("name %q, yes %v, list %q", name, yes, list)
	}
	for _, bad := range [][]string{{"--name"}, {"--nam", "x"}, {"--yes=perhaps"}, {"--list", "a,,b"}} {
		if _, err := newTestFlags().parse(bad); err == nil {
			t.Errorf("%q is taken", bad)
		} else if _, ok := errors.AsType[*usageError](err); !ok {
			t.Errorf("%q: %v is no usage error", bad, err)
		}
	}
}

func newTestFlags() *flags {
	f := newFlags()
	f.add(new(textValue), "name", "NAME", "")
	f.add(new(listValue), "list", "L", "")
	f.add(new(boolValue), "yes", "", "")
	return f
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"90s": 90 * time.Second, "15m": 15 * time.Minute, "12h": 12 * time.Hour, "30d": 30 * day, "1h30m": 90 * time.Minute} {
		var v durationValue
		if err := v.Set(text); err != nil || time.Duration(v) != want {
			t.Errorf("%s: %v %v", text, time.Duration(v), err)
		}
		var again durationValue
		if err := again.Set(v.String()); err != nil || again != v {
			t.Errorf("%s shows as %s, which is another: %v", text, v.String(), err)
		}
	}
	for _, bad := range []string{"", "5", "-1h", "soon", "1.5d", "-3d", "99999999d"} {
		if err := new(durationValue).Set(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestTimesInWords(t *testing.T) {
	p := &printer{now: time.Unix(1_800_000_000, 0)}
	for d, want := range map[time.Duration]string{
		0: "just now", -12 * time.Second: "12 s ago", 48 * time.Second: "in 48 s", -90 * time.Second: "1 min 30 s ago",
		-61 * time.Minute: "1 h 1 min ago", 7*day - time.Second: "in 7 d", 47 * time.Hour: "in 1 d 23 h", -30 * day: "30 d ago",
		59*time.Minute + 50*time.Second: "in 60 min",
	} {
		if got := p.ago(p.now.Add(d)); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

// SEC-124: what a client chose does not speak to the operator's terminal.
func TestSEC124OutputIsPrintable(t *testing.T) {
	var out bytes.Buffer
	p := &printer{w: &out, now: time.Now()}
	p.table([][]cell{{text("A"), text("B")}, {text("x\x1b[31m\u009b\u202e"), text("y\r\nz")}})
	if got := out.String(); strings.ContainsAny(got, "\x1b\r\u009b\u202e") || strings.Count(got, "\n") != 2 {
		t.Errorf("%q", got)
	}
	if got := oneLine("counterfoil: a\nb\n\tc\x1b"); got != `a; b c\x1b` {
		t.Errorf("%q", got)
	}
}

// Colour only where a terminal is, and the columns stay aligned with it.
func TestColour(t *testing.T) {
	rows := func() [][]cell { return [][]cell{{text("ID"), text("S")}, {styled(good, "ä"), text("b")}} }
	var with, without bytes.Buffer
	(&printer{w: &with, colour: true}).columns("", rows())
	(&printer{w: &without}).columns("", rows())
	if without.String() != "ID  S\nä   b\n" {
		t.Errorf("%q", without.String())
	}
	if with.String() != "ID  S\n\x1b[32mä\x1b[0m   b\n" {
		t.Errorf("%q", with.String())
	}
	if wantsColour(&app{stdout: &with}) {
		t.Error("a buffer is no terminal")
	}
}

// A full disk makes the command fail.
func TestOutputErrors(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{stdin: strings.NewReader(""), stdout: fullDisk{}, stderr: &stderr}
	if code := run(t.Context(), []string{"version"}, a); code != exitFailed {
		t.Errorf("exit code %d", code)
	}
	if want := "counterfoil: write output: no space left\n"; stderr.String() != want {
		t.Errorf("%q", stderr.String())
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// Each flag has a help text, and no two commands mean different kinds of
// values by one name: the configuration file is shared.
func TestFlagsAgree(t *testing.T) {
	metas := map[string]string{}
	var walk func(c *command)
	walk = func(c *command) {
		for _, child := range c.children {
			walk(child)
		}
		if c.setup == nil {
			return
		}
		f := newFlags()
		c.setup(&app{}, f)
		for _, name := range f.order {
			if f.set.Lookup(name).Usage == "" {
				t.Errorf("%s --%s has no help", c.name, name)
			}
			if known, ok := metas[name]; ok && (known == "") != (f.metas[name] == "") {
				t.Errorf("%s --%s is a switch here and none elsewhere", c.name, name)
			}
			metas[name] = f.metas[name]
		}
	}
	walk(root())
}

func FuzzConfig(f *testing.F) {
	for _, seed := range []string{"a = b\n", "# c\n\na=\"b c\"", "=", "a", "a = \"", "a = b = c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		lines, err := parseConfig(input)
		if err != nil {
			return
		}
		for _, line := range lines {
			if line.name == "" || strings.ContainsAny(line.name+line.value, "\n") || line.number < 1 {
				t.Errorf("%+v from %q", line, input)
			}
			// What was read can be written, and reads the same.
			again, err := parseConfig(line.name + ` = "` + line.value + `"`)
			if strings.Contains(line.value, `"`) || strings.HasPrefix(line.name, "#") {
				continue
			}
			if err != nil || len(again) != 1 || again[0].value != line.value {
				t.Errorf("%+v reads as %+v, %v", line, again, err)
			}
		}
	})
}

// What people paste is anything: no panic, one line of error.
func FuzzToken(f *testing.F) {
	for _, seed := range []string{"a.b.c", "eyJhbGciOiJFUzI1NiJ9.e30.AA", "cf_st_x", "e30.bnVsbA.AA", "eyJ0eXAiOjF9.eyJpYXQiOiJ4IiwiYW1yIjpbMV19.AA"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, input string) {
		parsed, err := parseToken(input)
		if err != nil {
			return
		}
		now := time.Unix(1_800_000_000, 0)
		var out bytes.Buffer
		showToken(&printer{w: &out, now: now}, parsed, judge(t.Context(), parsed, nil, now))
		if strings.ContainsAny(out.String(), "\x1b\r") {
			t.Errorf("%q", out.String())
		}
	})
}
