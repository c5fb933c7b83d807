package pages

import (
	"errors"

	"github.com/counterfoil/counterfoil"
)

// devicesPerPage is how many sessions one page lists.
const devicesPerPage = 50

// devicesPage is the list of a user's sessions.
type devicesPage struct {
	This   *device // nil on the pages after the first
	Others []device
	Next   string // of the following page
	After  string // of this one
}

// device is one session as its user sees it.
type device struct {
	agent
	SID      string
	Current  bool
	Active   moment
	SignedIn moment
	Proved   moment // when it was confirmed since; empty when it was not
	How      string
	IP       string
	Ends     moment
	App      string // which application, where there are several
}

func (v *visit) showDevices() error {
	ctx, now := v.r.Context(), v.auth.Now()
	after := v.r.URL.Query().Get("after")
	sessions, next, err := v.auth.Sessions(ctx, counterfoil.ListQuery{
		Subject: v.session.Subject, ActiveAt: now, After: after, Limit: devicesPerPage,
	})
	if field := (*counterfoil.FieldError)(nil); errors.As(err, &field) {
		return errNoPage
	}
	if err != nil {
		return err
	}
	page := &devicesPage{Next: next, After: after}
	for i := range sessions {
		if sessions[i].ID != v.session.ID {
			page.Others = append(page.Others, v.device(&sessions[i]))
		}
	}
	if after == "" {
		this := v.device(&v.session)
		this.Current = true
		page.This = &this
	}
	data := v.view("Your devices")
	data.Data = page
	return v.show("devices", data)
}

func (v *visit) device(s *counterfoil.Session) device {
	now := v.auth.Now()
	d := device{
		agent: agentOf(s.Device.UserAgent), SID: s.ID, IP: s.Device.IP, How: how(s.Methods),
		Active: at(s.LastActiveAt, now), SignedIn: at(s.CreatedAt, now), Ends: at(s.ExpiresAt, now),
	}
	if s.AuthTime.After(s.CreatedAt.Add(confirmedAfter)) {
		d.Proved = at(s.AuthTime, now)
	}
	if len(v.auth.Config().MoreClientIDs) > 0 {
		d.App = s.ClientID
	}
	return d
}

// endDevice signs another device of the same user out. It asks for no
// password: it is what a user needs who has just lost a phone. The id is no
// secret, so whose it is is checked (SEC-108).
func (v *visit) endDevice() error {
	sid := v.form.Get("sid")
	if sid == v.session.ID {
		return v.signOut()
	}
	err := v.auth.RevokeSession(v.r.Context(), sid, counterfoil.SignedOutEverywhere,
		counterfoil.By(actorUser), counterfoil.Of(v.session.Subject))
	switch {
	case errors.Is(err, counterfoil.ErrNotFound):
		v.note("already_ended")
	case err != nil:
		return err
	default:
		v.note("device_ended")
	}
	return v.redirect("devices")
}

func (v *visit) endOthers() error {
	err := v.auth.RevokeSubject(v.r.Context(), v.session.Subject, counterfoil.SignedOutEverywhere,
		counterfoil.By(actorUser), counterfoil.Except(v.session.ID))
	if err != nil {
		return err
	}
	v.note("others_ended")
	return v.redirect("devices")
}
