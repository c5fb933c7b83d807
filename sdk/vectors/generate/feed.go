package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

func sorted[T any, K cmp.Ordered](all []T, key func(T) K) []T {
	slices.SortStableFunc(all, func(a, b T) int { return cmp.Compare(key(a), key(b)) })
	return all
}

// tableCase is a table of revocations over time: entries that come, questions,
// and answers.
type tableCase struct {
	Name  string `json:"name"`
	Steps []step `json:"steps"`
}

// step happens so many seconds after the start. It applies entries, or asks.
type step struct {
	At    int64  `json:"at"`
	Apply []list `json:"apply,omitempty"`
	Ask   *ask   `json:"ask,omitempty"`
	Key   string `json:"key,omitempty"`
	Want  string `json:"want,omitempty"` // none, stale, revoked
	Size  *int   `json:"size,omitempty"` // how many rows are left
}

type ask struct {
	SID      string `json:"sid"`
	Subject  string `json:"sub"`
	JTI      string `json:"jti"`
	ClientID string `json:"client_id"`
	Epoch    int64  `json:"epoch"`
}

func tables() object {
	var cases []tableCase
	add := func(name string, steps ...step) { cases = append(cases, tableCase{name, steps}) }
	apply := func(at int64, entries ...list) step { return step{At: at, Apply: entries} }
	user := func(at int64, sid string, epoch int64, want string) step {
		return step{At: at, Ask: &ask{sid, "u1", "j-" + sid, "app", epoch}, Want: want}
	}
	key := func(at int64, want string) step { return step{At: at, Key: "k1", Want: want} }
	size := func(at int64, n int) step { return step{At: at, Size: &n} }
	const end = now + 60

	add("empty", user(0, "a", 0, "none"), key(0, "none"), size(0, 0))
	add("a session leaves at its end", apply(0, list{"s", "a", end}), user(0, "a", 9, "revoked"), user(59, "a", 9, "revoked"), user(0, "b", 9, "none"), size(59, 1), size(61, 0), user(61, "a", 9, "none"))
	add("an end that is put off", apply(0, list{"s", "a", end}), apply(10, list{"s", "a", end + 60}), size(61, 1), user(61, "a", 9, "revoked"), size(121, 0))
	add("an end is never brought forward", apply(0, list{"s", "a", end + 60}), apply(10, list{"s", "a", end}), size(61, 1), size(121, 0))
	add("without an end", apply(0, list{"s", "a", 0}), apply(1, list{"s", "a", end}), size(100000, 1), user(100000, "a", 9, "revoked"))
	add("a key never leaves", apply(0, list{"k", "k1", now - 60}), key(0, "revoked"), size(100000, 1), key(100000, "revoked"))
	add("over before it comes", apply(0, list{"s", "a", now}, list{"j", "j-a", now - 1}), user(0, "a", 9, "none"), size(0, 0))
	add("a subject: the greatest epochs count", apply(0, list{"u", "u1", 7, 5, end}), apply(0, list{"u", "u1", 6, 6, end}),
		user(0, "a", 5, "revoked"), user(0, "a", 6, "stale"), user(0, "a", 7, "none"))
	add("a client: the greatest epoch counts", apply(0, list{"c", "app", 5, end}, list{"c", "app", 3, end}), user(0, "a", 4, "revoked"), user(0, "a", 5, "none"))
	add("many leave in their order", apply(0, list{"s", "a", end + 3}, list{"s", "b", end + 1}, list{"j", "c", end + 2}, list{"u", "d", 1, 1, end}, list{"c", "e", 1, end + 4}),
		size(61, 4), size(62, 3), size(63, 2), user(63, "a", 9, "revoked"), size(64, 1), size(65, 0))
	for i, order := range [...][2]int{{0, 1}, {1, 0}} {
		put := func(name string, a, b list, steps ...step) {
			both := [2]list{a, b}
			add(fmt.Sprintf("%s, order %d", name, i+1), append([]step{apply(0, both[order[0]]), apply(1, both[order[1]])}, steps...)...)
		}
		put("except, after all were revoked", list{"u", "u1", 5, 5, end}, list{"u", "u1", 8, 8, end, "a"},
			user(2, "a", 4, "revoked"), user(2, "a", 5, "stale"), user(2, "a", 7, "stale"), user(2, "a", 8, "none"), user(2, "b", 7, "revoked"), user(2, "b", 8, "none"))
		put("except, before all were revoked", list{"u", "u1", 5, 5, end, "a"}, list{"u", "u1", 8, 8, end},
			user(2, "a", 4, "revoked"), user(2, "a", 7, "revoked"), user(2, "a", 8, "none"))
		put("except two, one after the other", list{"u", "u1", 5, 5, end, "a"}, list{"u", "u1", 8, 8, end, "b"},
			user(2, "a", 7, "revoked"), user(2, "b", 4, "revoked"), user(2, "b", 5, "stale"))
		put("except two at one epoch", list{"u", "u1", 5, 5, end, "a"}, list{"u", "u1", 5, 5, end, "b"},
			user(2, "a", 4, "revoked"), user(2, "b", 4, "revoked"), user(2, "a", 5, "none"))
		put("except, and a change of rights", list{"u", "u1", 5, 5, end, "a"}, list{"u", "u1", 9, 0, end},
			user(2, "a", 4, "stale"), user(2, "a", 8, "stale"), user(2, "b", 4, "revoked"), user(2, "b", 8, "stale"), user(2, "b", 9, "none"))
	}
	return object{"about": "The table of revocations over time. See README.md.", "now": now, "cases": cases}
}

// streamCase is a feed as bytes, and the frames in it.
type streamCase struct {
	Name   string `json:"name"`
	Stream string `json:"stream,omitempty"`
	Base64 string `json:"base64,omitempty"` // of the stream where it is no text
	Frames []any  `json:"frames"`
	Fails  bool   `json:"fails,omitempty"` // after these frames
}

type entriesFrame struct {
	Kind     string `json:"kind"`
	Position string `json:"position,omitempty"`
	Entries  []list `json:"entries"`
	Skipped  int    `json:"skipped,omitempty"`
}

type beatFrame struct {
	Kind    string  `json:"kind"`
	AgeMS   int64   `json:"age_ms"`
	Now     float64 `json:"now"`
	Keys    int64   `json:"keys"`
	Node    string  `json:"node"`
	Skipped int     `json:"skipped,omitempty"`
}

func streams() object {
	var cases []streamCase
	add := func(name, stream string, frames ...any) {
		cases = append(cases, streamCase{Name: name, Stream: stream, Frames: append([]any{}, frames...)})
	}
	fail := func(name, stream string, frames ...any) {
		add(name, stream, frames...)
		cases[len(cases)-1].Fails = true
	}
	const one = "id: 7.10422\nevent: live\ndata: [[\"s\",\"a\",1763770060]]\n\n"
	live := entriesFrame{Kind: "live", Position: "7.10422", Entries: []list{{"s", "a", now + 60}}}
	const pulse = "event: beat\ndata: {\"age_ms\":12,\"now\":176375000.123456,\"keys\":41,\"node\":\"a7\"}\n\n"
	beat := beatFrame{"beat", 12, 176375000.123456, 41, "a7", 0}
	data := func(event, text string) string { return "event: " + event + "\ndata: " + text + "\n\n" }

	add("nothing", "")
	add("one", one, live)
	add("a beat", pulse, beat)
	add("some", pulse+one+pulse, beat, live, beat)
	add("every kind of entry", "id: 1.0\n"+data("snapshot", `[["s","a",1],["u","b",2,3,4,"a"],["u","c",2,0,4],["k","d",5],["j","e",6],["c","f",7,8]]`),
		entriesFrame{Kind: "snapshot", Position: "1.0", Entries: []list{{"s", "a", 1}, {"u", "b", 2, 3, 4, "a"}, {"u", "c", 2, 0, 4}, {"k", "d", 5}, {"j", "e", 6}, {"c", "f", 7, 8}}})
	add("a snapshot in parts", data("snapshot", `[["s","a",1]]`)+data("snapshot", `[["s","b",1]]`)+"id: 7.9\n"+data("snapshot", `[]`)+pulse,
		entriesFrame{Kind: "snapshot", Entries: []list{{"s", "a", 1}}}, entriesFrame{Kind: "snapshot", Entries: []list{{"s", "b", 1}}}, entriesFrame{Kind: "snapshot", Position: "7.9", Entries: []list{}}, beat)
	add("only a position", "id: 7.10423\n"+data("live", `[]`), entriesFrame{Kind: "live", Position: "7.10423", Entries: []list{}})
	add("carriage returns", strings.ReplaceAll(one, "\n", "\r\n"), live)
	add("a byte order mark", "\ufeff"+one, live)
	add("comments and empty lines", ": hello\n\n\n"+one+":\n\n", live)
	add("no space behind the colon", strings.ReplaceAll(one, ": ", ":"), live)
	add("fields in another order, and unknown ones", "retry: 5\ndata: [[\"s\",\"a\",1763770060]]\nnew\nevent: live\nid: 7.10422\n\n", live)
	add("data on two lines", "id: 7.10422\nevent: live\ndata: [[\"s\",\ndata: \"a\",1763770060]]\n\n", live)
	add("text beyond ASCII", data("live", `[["s","Zoë `+"\U0001f3ab"+`",1]]`), entriesFrame{Kind: "live", Entries: []list{{"s", "Zoë \U0001f3ab", 1}}})
	add("events of a later version", data("news", "anything")+data("", "x")+"data: y\n\n"+one, entriesFrame{"live", "7.10422", live.Entries, 3})
	add("kinds of entries of a later version", data("live", `[["z"],["s","a",1],["longer","x",{"y":[]}]]`), entriesFrame{Kind: "live", Entries: []list{{"s", "a", 1}}, Skipped: 2})
	add("members of a later version", data("live", `[["s","a",1,"x"],["u","b",2,3,4,"a",5],["c","f",7,8,9]]`), entriesFrame{Kind: "live", Entries: []list{{"s", "a", 1}, {"u", "b", 2, 3, 4, "a"}, {"c", "f", 7, 8}}})
	add("a beat with more and less", data("beat", `{"keys":1,"now":5,"age_ms":0,"load":0.5}`), beatFrame{Kind: "beat", Now: 5, Keys: 1})
	add("cut within a frame", one+strings.TrimSuffix(one, "\n"), live)
	add("cut within a line", one+pulse[:30], live)
	add("a long frame", data("live", `[["s","`+strings.Repeat("a", 5000)+`",1]]`), entriesFrame{Kind: "live", Entries: []list{{"s", strings.Repeat("a", 5000), 1}}})
	add("an id with a beat is none", "id: x\n"+pulse, beat)
	cases = append(cases, streamCase{Name: "bytes that are no text, in a comment", Base64: b64([]byte(": \xff\n" + one)), Frames: []any{live}})
	cases = append(cases, streamCase{Name: "bytes that are no text, in data", Base64: b64([]byte(one + data("live", "[[\"s\",\"\xff\",1]]"))), Frames: []any{live}, Fails: true})

	for _, id := range []string{"", "7", "7.", ".7", "0.7", "07.1", "7.01", "-7.1", "+7.1", "7.1.1", " 7.1", "7.1x", "7.9223372036854775808", "x"} {
		fail(fmt.Sprintf("the position %q", id), one+strings.Replace(one, "7.10422", id, 1), live)
	}
	for _, text := range []string{
		`{}`, `null`, `[`, `[]]`, `[1]`, `[[]]`, `[[1,"a",1]]`, `[["s"]]`, `[["s","a"]]`, `[["s","",1]]`, `[["s",1,1]]`, `[["s","a","1"]]`, `[["s","a",-1]]`, `[["s","a",1.5]]`, `[["s","a",null]]`,
		`[["u","a",1,1]]`, `[["u","a",1,-1,1]]`, `[["u","a",1,1,1,1]]`, `[["c","a",1]]`, `[["c","a","1",1]]`, `[["k","a"]]`, `[["j","a"]]`, `[["z",01]]`,
	} {
		fail("entries "+text, one+data("live", text), live)
	}
	for _, text := range []string{
		`[]`, `{"age_ms":1,"now":1}`, `{"age_ms":1,"keys":1}`, `{"now":1,"keys":1}`, `{"age_ms":-1,"now":1,"keys":1}`, `{"age_ms":1.5,"now":1,"keys":1}`, `{"age_ms":1,"now":"1","keys":1}`,
		`{"age_ms":1,"now":-1,"keys":1}`, `{"age_ms":1,"now":1e300,"keys":1}`, `{"age_ms":1,"now":1,"keys":"1"}`, `{"age_ms":1,"age_ms":1,"now":1,"keys":1}`, `{"age_ms":1,"now":1,"keys":1,"node":1}`,
	} {
		fail("beat "+text, pulse+data("beat", text), beat)
	}
	return object{"about": "Feeds of revocations as bytes, and the frames in them, however the bytes come. See README.md.", "cases": cases}
}
