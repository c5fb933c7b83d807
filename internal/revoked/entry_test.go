package revoked

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

var until = time.Unix(1763770000, 0).UTC()

func TestCompactForm(t *testing.T) {
	for _, tc := range []struct {
		entry Entry
		want  string
	}{
		{Entry{Kind: Session, ID: "s1", Until: until}, `["s","s1",1763770000]`},
		{Entry{Kind: Session, ID: "s1", Until: until.Add(1)}, `["s","s1",1763770001]`},
		{Entry{Kind: Subject, ID: `a"b`, StaleBelow: 7, RevokedBelow: 6, Until: until}, `["u","a\"b",7,6,1763770000]`},
		{Entry{Kind: Subject, ID: "u1", StaleBelow: 7, RevokedBelow: 7, Until: until, Except: "s1"}, `["u","u1",7,7,1763770000,"s1"]`},
		{Entry{Kind: Key, ID: "k1"}, `["k","k1",0]`},
		{Entry{Kind: Token, ID: "j1", Until: until}, `["j","j1",1763770000]`},
		{Entry{Kind: Client, ID: "c1", RevokedBelow: 3, Until: until}, `["c","c1",3,1763770000]`},
	} {
		got, err := json.Marshal(tc.entry)
		if err != nil || string(got) != tc.want {
			t.Errorf("%+v: %s, %v; want %s", tc.entry, got, err, tc.want)
		}
		var back Entry
		if err := json.Unmarshal(got, &back); err != nil {
			t.Errorf("%s: %v", got, err)
		}
		again := back.AppendJSON(nil)
		if string(again) != tc.want {
			t.Errorf("%s came back as %s", tc.want, again)
		}
	}
	for _, bad := range []Entry{{Kind: Session}, {Kind: Session, ID: "\xff"}, {Kind: Subject, ID: "a", Except: "\xff"}} {
		if _, err := json.Marshal(bad); err == nil {
			t.Errorf("%+v was written", bad)
		}
	}
}

func TestDecodeSkipsUnknownKindsAndCountsThem(t *testing.T) {
	got, skipped, err := Decode([]byte(`[["s","a",5],["z",{"new":1}],["tenant","b"],["s","b",6,"more"]]`))
	want := []Entry{{Kind: Session, ID: "a", Until: time.Unix(5, 0).UTC()}, {Kind: Session, ID: "b", Until: time.Unix(6, 0).UTC()}}
	if err != nil || skipped != 2 || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %d, %v", got, skipped, err)
	}
	for _, bad := range []string{
		``, `{}`, `[`, `["s"]`, `[[]]`, `[[1,"a",5]]`, `[["s"]]`, `[["s","a"]]`, `[["s","",5]]`, `[["s","a",-5]]`,
		`[["s","a","5"]]`, `[["s",7,5]]`, `[["u","a",1,5]]`, `[["u","a",1,1,5,6]]`, `[["c","a",5]]`, `[["s","a",1.5]]`,
	} {
		if got, _, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%s was read as %+v", bad, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`[["s","a",5],["u","b",1,2,6,"s"],["k","c",0],["j","d",7],["c","e",9,8],["x"]]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, _, err := Decode(data)
		if err != nil {
			return
		}
		again, skipped, err := Decode(Encode(entries))
		if err != nil || skipped != 0 || !reflect.DeepEqual(entries, again) {
			t.Fatalf("%s\n%+v\n%+v\n%v", data, entries, again, err)
		}
	})
}
