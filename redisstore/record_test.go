package redisstore

import (
	"reflect"
	"testing"
	"time"

	"github.com/counterfoil/counterfoil"
)

func exampleRecord() record {
	at := time.Date(2031, 5, 4, 12, 0, 0, 123e6, time.UTC)
	return record{rev: 7, endedBelow: 9, Session: counterfoil.Session{
		ID: "00abcdefghijklmnopqrstuv", Subject: "ann", ClientID: "default", ParentID: "00ABCDEFGHIJKLMNOPQRSTUV",
		CreatedAt: at, LastActiveAt: at.Add(time.Minute), IdleTimeout: time.Hour, ExpiresAt: at.Add(24 * time.Hour),
		AuthTime: at.Add(-time.Second), Methods: []string{"pwd", "otp"}, Device: counterfoil.Device{UserAgent: "Agent/1.0", IP: "192.0.2.7"},
		Epoch0: 1763770000000000, Roles: []string{}, Scope: []string{"read"}, Extra: map[string]any{"plan": "pro"}, SecretHash: [32]byte{1, 2, 3},
		Binding: &counterfoil.Binding{Key: counterfoil.DeviceKey{4, 5}, RegisteredAt: at, Proofs: 3},
		End:     &counterfoil.End{Reason: counterfoil.Revoked, Actor: "operator", At: at.Add(time.Hour)},
	}}
}

func TestRecord(t *testing.T) {
	full := exampleRecord()
	plain := record{Session: counterfoil.Session{ID: full.ID, CreatedAt: fromMillis(0), LastActiveAt: fromMillis(-5), ExpiresAt: fromMillis(1 << 50), AuthTime: time.Time{}.UTC()}}
	for _, want := range []record{full, plain} {
		data, err := want.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := readRecord(want.ID, data)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
		for n := range data {
			if _, err := readRecord(want.ID, data[:n]); err == nil {
				t.Errorf("%d of %d bytes were read as a record", n, len(data))
			}
		}
		data[0]++
		if _, err := readRecord(want.ID, data); err == nil {
			t.Error("a later version was read")
		}
	}
}

func TestSubjectCopy(t *testing.T) {
	for _, want := range []counterfoil.Subject{
		{ID: "ann", Epoch: 5},
		{ID: "ann", Epoch: 1 << 52, SignedOutBelow: 1 << 51, SignedOut: &counterfoil.End{Reason: counterfoil.Disabled, Actor: "operator", At: fromMillis(5)},
			Rights: counterfoil.Rights{Roles: []string{"admin"}, Scope: []string{}, Disabled: true}},
	} {
		data := encodeSubject(&want)
		got, err := readSubject("ann", data)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
		for n := range data {
			if _, err := readSubject("ann", data[:n]); err == nil {
				t.Errorf("%d of %d bytes were read as a subject", n, len(data))
			}
		}
	}
}

// What is read is written as it was read, whatever bytes there are.
func FuzzRecord(f *testing.F) {
	full := exampleRecord()
	data, err := full.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	full.Binding, full.End, full.Extra = nil, nil, nil
	if data, err = full.encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = readSubject("ann", data)
		got, err := readRecord("00abcdefghijklmnopqrstuv", data)
		if err != nil {
			return
		}
		again, err := got.encode()
		if err != nil {
			return // a subject that is too long, an Extra that is none
		}
		second, err := readRecord("00abcdefghijklmnopqrstuv", again)
		if err != nil || !reflect.DeepEqual(got, second) {
			t.Fatalf("%x\n%+v\n%+v\n%v", data, got, second, err)
		}
	})
}

func FuzzParseURL(f *testing.F) {
	for _, text := range []string{"redis://:p%40ss@host:6379/2", "rediss://user:pw@[::1]:1,[::2]:2", "redis://h", "valkey://a,b,c", "redis://u:p@h:0", "redis://"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		option, err := ParseURL(text)
		if err == nil && (len(option.InitAddress) == 0 || option.SelectDB < 0) {
			t.Fatalf("%q: %+v", text, option)
		}
	})
}

func TestParseURL(t *testing.T) {
	option, err := ParseURL("rediss://us%3Aer:p%40ss%2F@one.example,[::1]:7000/3")
	if err != nil || option.Username != "us:er" || option.Password != "p@ss/" || option.SelectDB != 3 || option.TLSConfig == nil ||
		!reflect.DeepEqual(option.InitAddress, []string{"one.example:6379", "[::1]:7000"}) {
		t.Errorf("%+v, %v", option, err)
	}
	for _, text := range []string{"", "redis", "http://host", "redis://", "redis://host:0", "redis://host:x", "redis://host/x", "redis://host/-1", "redis://host?db=2",
		"redis://%zz@host", "redis://a b", "redis://host,"} {
		if option, err := ParseURL(text); err == nil {
			t.Errorf("%q was read as %+v", text, option)
		}
	}
}
