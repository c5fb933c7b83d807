package memstore

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/counterfoil/counterfoil"
)

// keepable copies a session into the form in which it is kept: times in UTC
// and to the microsecond, Extra as JSON would give it back.
func keepable(s counterfoil.Session) (counterfoil.Session, error) {
	s = cloneSession(s)
	s.CreatedAt, s.LastActiveAt = moment(s.CreatedAt), moment(s.LastActiveAt)
	s.ExpiresAt, s.AuthTime = moment(s.ExpiresAt), moment(s.AuthTime)
	if s.Binding != nil {
		s.Binding.RegisteredAt = moment(s.Binding.RegisteredAt)
	}
	if s.Extra != nil {
		text, err := json.Marshal(s.Extra)
		if err != nil {
			return s, fmt.Errorf("session: Extra: must be JSON: %w", err)
		}
		s.Extra = nil
		if err := json.Unmarshal(text, &s.Extra); err != nil {
			return s, fmt.Errorf("session: Extra: must be JSON: %w", err)
		}
	}
	return s, nil
}

func cloneSession(s counterfoil.Session) counterfoil.Session {
	s.Methods = slices.Clone(s.Methods)
	s.Roles = slices.Clone(s.Roles)
	s.Scope = slices.Clone(s.Scope)
	s.End = cloneEnd(s.End)
	if s.Binding != nil {
		binding := *s.Binding
		s.Binding = &binding
	}
	if s.Extra != nil {
		s.Extra = cloneValue(s.Extra).(map[string]any)
	}
	return s
}

func cloneEnd(e *counterfoil.End) *counterfoil.End {
	if e == nil {
		return nil
	}
	c := *e
	return &c
}

func cloneRights(r counterfoil.Rights) counterfoil.Rights {
	r.Roles = slices.Clone(r.Roles)
	r.Scope = slices.Clone(r.Scope)
	return r
}

// cloneValue copies what JSON holds; other values do not get past keepable.
func cloneValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, member := range v {
			c[k] = cloneValue(member)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, element := range v {
			c[i] = cloneValue(element)
		}
		return c
	}
	return v
}
