package sqlstore

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/internal/opaque"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// EndAgain writes down the end of a session, with an entry of the feed, where
// the store of the sessions knows of it and the journal does not: a standby
// that was promoted may not have got it. Otherwise it does nothing.
func (j *Journal) EndAgain(ctx context.Context, id string, end counterfoil.End, retain time.Duration) (list []counterfoil.Revocation, facts []Fact, err error) {
	err = j.in.tx(ctx, func(on runner) error {
		list, facts = nil, nil
		ended, _, err := j.known(ctx, on, []string{id})
		if _, ok := ended[id]; ok || err != nil {
			return err
		}
		fact := Fact{Ref: id, End: &end}
		entry, added, err := j.noteEnd(ctx, on, &fact, retain)
		if err == nil && added {
			list, facts = []counterfoil.Revocation{entry}, []Fact{fact}
		}
		return err
	})
	if err != nil {
		return nil, nil, failed("end session", err)
	}
	return list, facts, nil
}

// noteEnd writes down the end of a session and then its entry of the feed, or
// reads the end that somebody else has written down.
func (j *Journal) noteEnd(ctx context.Context, on runner, fact *Fact, retain time.Duration) (entry counterfoil.Revocation, added bool, err error) {
	// First the fact: it gives the transaction its number.
	if err := j.note(ctx, on, fact); err != nil {
		return entry, false, err
	}
	if fact.No == 0 {
		ended, _, err := j.known(ctx, on, []string{fact.Ref})
		if there, ok := ended[fact.Ref]; ok {
			*fact = there
		}
		return entry, false, err
	}
	entry = counterfoil.Revocation{Kind: revoked.Session, ID: fact.Ref}
	err = j.report(ctx, on, &entry, retain)
	return entry, err == nil, err
}

// endOrphans has a row that was made now end the sessions from before it.
func (j *Journal) endOrphans(ctx context.Context, on runner, id string) error {
	now, err := j.instant(ctx, on)
	if err != nil {
		return err
	}
	_, err = on.exec(ctx, `UPDATE {subjects} SET signed_out_below = epoch, signed_out_at = $2, signed_out_reason = $3, signed_out_actor = ''
		WHERE id = $1 AND signed_out_below = 0`, id, now.UnixMilli(), string(ReasonRestored))
	return err
}

// factColumns are what readFact reads.
const factColumns = `no, ref, detail`

// factDetail is a fact as the journal has it, times in Unix milliseconds.
type factDetail struct {
	End     *factEnd     `json:"end,omitempty"`
	Subject *factSubject `json:"subject,omitempty"`
	Keep    *factKeep    `json:"keep,omitempty"`
}

type factEnd struct {
	Reason counterfoil.Reason `json:"reason"`
	Actor  string             `json:"actor,omitempty"`
	At     int64              `json:"at"`
}

type factSubject struct {
	Epoch          int64    `json:"epoch"`
	SignedOutBelow int64    `json:"below,omitempty"`
	SignedOut      *factEnd `json:"out,omitempty"`
	Roles          []string `json:"roles,omitempty"`
	Scope          []string `json:"scope,omitempty"`
	Disabled       bool     `json:"disabled,omitempty"`
}

type factKeep struct {
	ID       string   `json:"sid"`
	Secret   []byte   `json:"secret,omitempty"`
	AuthTime *int64   `json:"auth_time,omitempty"`
	Methods  []string `json:"amr"` // null: as they were
}

func (f *Fact) detail() (d factDetail) {
	d.End = endDetail(f.End)
	if u := f.Subject; u != nil {
		d.Subject = &factSubject{u.Epoch, u.SignedOutBelow, endDetail(u.SignedOut), u.Roles, u.Scope, u.Disabled}
	}
	if k := f.Keep; k != nil {
		d.Keep = &factKeep{ID: k.ID, Methods: k.Methods}
		if k.SecretHash != (opaque.Hash{}) {
			d.Keep.Secret = k.SecretHash[:]
		}
		if !k.AuthTime.IsZero() {
			at := k.AuthTime.UnixMilli()
			d.Keep.AuthTime = &at
		}
	}
	return d
}

func endDetail(e *counterfoil.End) *factEnd {
	if e == nil {
		return nil
	}
	return &factEnd{e.Reason, e.Actor, e.At.UnixMilli()}
}

func (e *factEnd) end() *counterfoil.End {
	if e == nil {
		return nil
	}
	return &counterfoil.End{Reason: e.Reason, Actor: e.Actor, At: fromMillis(e.At)}
}

func readFact(r *row) (Fact, error) {
	f := Fact{No: r.int(), Ref: r.text()}
	var d factDetail
	if err := json.Unmarshal([]byte(r.text()), &d); err != nil {
		return f, fmt.Errorf("journal, number %d: %w", f.No, err)
	}
	f.End = d.End.end()
	if u := d.Subject; u != nil {
		f.Subject = &counterfoil.Subject{ID: f.Ref, Epoch: u.Epoch, SignedOutBelow: u.SignedOutBelow, SignedOut: u.SignedOut.end(),
			Rights: counterfoil.Rights{Roles: u.Roles, Scope: u.Scope, Disabled: u.Disabled}}
	}
	if k := d.Keep; k != nil {
		f.Keep = &counterfoil.Keep{ID: k.ID, Methods: k.Methods}
		copy(f.Keep.SecretHash[:], k.Secret)
		if k.AuthTime != nil {
			f.Keep.AuthTime = fromMillis(*k.AuthTime)
		}
	}
	return f, nil
}
