package verify

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Rule is one demand of a route beyond a valid token. All rules of a route
// hold together; the stricter of two of a kind counts.
type Rule struct {
	apply func(*ruleset) error
}

// ruleset is the sum of a route's rules.
type ruleset struct {
	maxTokenAge    time.Duration // 0: none
	maxFeedAge     time.Duration // 0: none
	maxAuthAge     time.Duration // 0: none
	roles          []string
	scope          []string
	live           bool
	cookie         bool
	refreshWhenOld bool
	noDegraded     bool
}

// MaxTokenAge asks for a token issued at most d ago. For an older one the
// verifier asks the authority whether it still holds, if it has a way to ask;
// otherwise the answer is token_too_old and the client refreshes once. Below
// some seconds it is [Live] that is wanted: clocks differ.
func MaxTokenAge(d time.Duration) Rule {
	return Rule{func(r *ruleset) error { return shorten(&r.maxTokenAge, d, "MaxTokenAge") }}
}

// RefreshWhenOld makes [MaxTokenAge] answer token_too_old even where the
// verifier could ask the authority: for callers that can refresh at once, and
// for routes that want fresh claims rather than the word that the old ones hold.
func RefreshWhenOld() Rule {
	return Rule{func(r *ruleset) error { r.refreshWhenOld = true; return nil }}
}

// MaxFeedAge asks that the verifier has heard of all revocations that the
// authority's store had d ago. A verifier that follows the feed knows how old
// its knowledge is, a tenth of a second or so while it is connected, and the
// rule costs nothing then. When the feed is older, cut off for instance, the
// authority is asked about the token instead, at most once in d; if that
// fails too the answer is 503. So no revocation stays unheard for longer than d.
func MaxFeedAge(d time.Duration) Rule {
	return Rule{func(r *ruleset) error { return shorten(&r.maxFeedAge, d, "MaxFeedAge") }}
}

// MaxAuthAge asks that the user proved who they are at most d ago. Otherwise
// the answer is the challenge of RFC 9470, insufficient_user_authentication
// with max_age.
func MaxAuthAge(d time.Duration) Rule {
	return Rule{func(r *ruleset) error { return shorten(&r.maxAuthAge, d, "MaxAuthAge") }}
}

func shorten(present *time.Duration, d time.Duration, name string) error {
	if d <= 0 {
		return fmt.Errorf("%s(%v): want a positive duration", name, d)
	}
	if *present == 0 || d < *present {
		*present = d
	}
	return nil
}

// Role asks for a role.
func Role(name string) Rule {
	return Rule{func(r *ruleset) error {
		if name == "" {
			return errors.New("Role: the name is empty")
		}
		r.roles = append(r.roles, name)
		return nil
	}}
}

// Scope asks for all of the scopes named.
func Scope(names ...string) Rule {
	names = slices.Clone(names)
	return Rule{func(r *ruleset) error {
		if len(names) == 0 {
			return errors.New("Scope: name at least one")
		}
		for _, name := range names {
			if !scopeToken(name) {
				return fmt.Errorf("Scope: %q is not one scope token; name each by itself", name)
			}
			if !slices.Contains(r.scope, name) {
				r.scope = append(r.scope, name)
			}
		}
		return nil
	}}
}

// Live asks the authority about every request, after the local check. Nothing
// is cached; requests that come at the same time share a question only if it
// has not been sent yet. If the authority cannot be asked, the answer is 503.
func Live() Rule {
	return Rule{func(r *ruleset) error { r.live = true; return nil }}
}

// NoDegraded refuses tokens of degraded minting, which an authority that is cut
// off from its store may issue where its operator has switched that on: they
// say what was true when it last read the session, up to some minutes ago.
// [Live] and [MaxFeedAge] refuse them too. The answer is token_too_old: the
// client refreshes once, and gets a good one if the authority's store is back.
func NoDegraded() Rule {
	return Rule{func(r *ruleset) error { r.noDegraded = true; return nil }}
}

// Cookie takes the access token from the cookie __Host-counterfoil-at also,
// for pages that work without JavaScript. The Authorization header comes first.
// Requests of unsafe methods that bring the cookie from another origin are
// refused (see [Config].TrustedOrigins).
func Cookie() Rule {
	return Rule{func(r *ruleset) error { r.cookie = true; return nil }}
}

// compile sums up the rules of a route, and fails on one that this verifier
// cannot keep.
func (v *Verifier) compile(rules []Rule) (ruleset, error) {
	var r ruleset
	for _, rule := range rules {
		if rule.apply == nil {
			return r, errors.New("verify: a Rule made by none of this package's functions")
		}
		if err := rule.apply(&r); err != nil {
			return r, fmt.Errorf("verify: %w", err)
		}
	}
	if r.live && v.live == nil {
		return r, errors.New("verify: Live: this verifier has no way to ask the authority; set Config.APIKey")
	}
	if r.maxFeedAge > 0 && v.live == nil && v.feedAge == nil {
		return r, errors.New("verify: MaxFeedAge: this verifier follows no feed and has no way to ask the authority; set Config.APIKey")
	}
	return r, nil
}

func (v *Verifier) mustCompile(rules []Rule) *ruleset {
	r, err := v.compile(rules)
	if err != nil {
		panic(err.Error())
	}
	return &r
}
