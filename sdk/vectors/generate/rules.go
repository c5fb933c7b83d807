package main

// times are the edges of a token's life: the leeway is five seconds.
func times(add adder) {
	token := usual().token() // iat now-10, exp now+50
	for _, c := range []struct {
		name string
		now  int64
		code string
	}{
		{"a second before exp", now + 49, ""}, {"at exp", now + 50, ""}, {"4 s after exp", now + 54, ""},
		{"5 s after exp", now + 55, "token_expired"}, {"6 s after exp", now + 56, "token_expired"}, {"an hour after exp", now + 3650, "token_expired"},
		{"at iat", now - 10, ""}, {"4 s before iat", now - 14, ""}, {"5 s before iat", now - 15, ""}, {"6 s before iat", now - 16, "token_invalid"},
	} {
		add(c.name, token, c.code, at(c.now))
	}
	add("nbf in 5 s", usual().and("nbf", number(now+5)).token(), "")
	add("nbf in 6 s", usual().and("nbf", number(now+6)).token(), "token_invalid")
	add("nbf in the past", usual().and("nbf", number(now-6)).token(), "")
	add("exp at iat", usual().with("exp", now-10).token(), "token_invalid")
	add("exp before iat", usual().with("exp", now-11).token(), "token_invalid")
	life := func(longest int64) func(*tokenCase) {
		return func(c *tokenCase) { c.MaxLifetime = longest }
	}
	add("lives as long as the authority issues", token, "", life(60))
	add("lives a second longer", token, "token_invalid", life(59))
	add("lives an hour", usual().with("exp", now-10+3600).token(), "")
	add("lives an hour and a second", usual().with("exp", now-10+3601).token(), "token_invalid")
}

func revoked(add adder) {
	const later = now + 100
	token := usual().token() // epoch 41
	for _, c := range []struct {
		name    string
		code    string
		entries []list
	}{
		{"session", "token_revoked", []list{{"s", sid, later}}},
		{"another session", "", []list{{"s", sid[:23] + "x", later}}},
		{"session, for good", "token_revoked", []list{{"s", sid, 0}}},
		{"session, but long over", "", []list{{"s", sid, now}}},
		{"token", "token_revoked", []list{{"j", jti, later}}},
		{"another token", "", []list{{"j", "jti-2", later}}},
		{"key", "token_invalid", []list{{"k", "es1", later}}},
		{"key, which has no end", "token_invalid", []list{{"k", "es1", now - 1000}}},
		{"another key", "", []list{{"k", "es2", later}}},
		{"client at the epoch", "", []list{{"c", "default", epoch, later}}},
		{"client above the epoch", "token_revoked", []list{{"c", "default", epoch + 1, later}}},
		{"another client", "", []list{{"c", "other", epoch + 1, later}}},
		{"stale at the epoch", "", []list{{"u", subject, epoch, 0, later}}},
		{"stale above the epoch", "token_stale", []list{{"u", subject, epoch + 1, 0, later}}},
		{"revoked at the epoch", "", []list{{"u", subject, epoch, epoch, later}}},
		{"revoked above the epoch", "token_revoked", []list{{"u", subject, epoch + 1, epoch + 1, later}}},
		{"another subject", "", []list{{"u", "user-2", epoch + 1, epoch + 1, later}}},
		{"stale above, revoked at the epoch", "token_stale", []list{{"u", subject, epoch + 1, epoch, later}}},
		{"revoked except this session", "token_stale", []list{{"u", subject, epoch + 1, epoch + 1, later, sid}}},
		{"revoked except another session", "token_revoked", []list{{"u", subject, epoch + 1, epoch + 1, later, sid[:23] + "x"}}},
		{"except, but the session too", "token_revoked", []list{{"u", subject, epoch + 1, epoch + 1, later, sid}, {"s", sid, later}}},
		{"except, after a revocation of all", "token_revoked", []list{{"u", subject, epoch + 1, epoch + 1, later}, {"u", subject, epoch + 2, epoch + 2, later, sid}}},
		{"except, with a member of a later version", "token_stale", []list{{"u", subject, epoch + 1, epoch + 1, later, sid, "new"}}},
		{"kinds of a later version", "", []list{{"z", subject, 1}, {"session", sid, later}, {"S", sid, later}, {""}}},
		{"a kind of a later version beside a known one", "token_revoked", []list{{"z", "x", object{"y": 1}}, {"s", sid, later}}},
	} {
		add("revoked: "+c.name, token, c.code, known(c.entries...))
	}
	add("revoked, and expired", token, "token_expired", at(now+60), known(list{"s", sid, later}))
	add("revoked, for another audience", usual().with("aud", text("billing")).token(), "audience_mismatch", known(list{"s", sid, later}))
	add("revoked, the n-s twin", twin(token), "token_revoked", known(list{"j", jti, later}))
}

func rules(add adder) {
	token := usual().token() // iat now-10, auth_time now-600
	scoped := func(scope ...string) func(*tokenCase) {
		return func(c *tokenCase) { c.Expect.Scope = scope }
	}
	authAge := func(age int64) func(*tokenCase) { return func(c *tokenCase) { c.Expect.MaxAge = age } }

	add("max_token_age: as old", token, "", where(ruleCase{MaxTokenAge: 10}, ""))
	add("max_token_age: a second older", token, "token_too_old", where(ruleCase{MaxTokenAge: 10}, ""), at(now+1))
	add("max_token_age: a fraction", token, "token_too_old", where(ruleCase{MaxTokenAge: 9.5}, ""))
	add("max_token_age: older, asked", token, "", where(ruleCase{MaxTokenAge: 9}, "active"))
	add("max_token_age: older, asked and ended", token, "session_revoked", where(ruleCase{MaxTokenAge: 9}, "session_revoked"))
	add("max_token_age: young, so not asked", token, "", where(ruleCase{MaxTokenAge: 10}, "session_revoked"))
	add("max_token_age: older, refresh_when_old", token, "token_too_old", where(ruleCase{MaxTokenAge: 9, RefreshWhenOld: true}, "active"))
	for _, code := range []string{"session_revoked", "session_expired", "session_unknown", "token_stale", "token_expired", "token_revoked", "unavailable"} {
		add("live: "+code, token, code, where(ruleCase{Live: true}, code))
	}
	add("live: active", token, "", where(ruleCase{Live: true}, "active"))
	add("live: not asked about a bad token", usual().with("exp", now-9).token(), "token_expired", where(ruleCase{Live: true}, "session_revoked"))
	degraded := usual().and("degraded", "true").token()
	add("degraded: taken", degraded, "", func(c *tokenCase) { c.Expect.Claims = object{"degraded": true} })
	add("degraded: false", usual().and("degraded", "false").token(), "", where(ruleCase{NoDegraded: true}, ""),
		func(c *tokenCase) { c.Expect.Claims = object{"degraded": false} })
	add("degraded: no_degraded", degraded, "token_too_old", where(ruleCase{NoDegraded: true}, "active"))
	add("degraded: no_degraded, and it is not", token, "", where(ruleCase{NoDegraded: true}, ""))
	add("degraded: live is not asked", degraded, "token_too_old", where(ruleCase{Live: true}, "active"))
	add("degraded: young enough", degraded, "", where(ruleCase{MaxTokenAge: 10}, "active"))
	add("degraded: too old is not asked about", degraded, "token_too_old", where(ruleCase{MaxTokenAge: 9}, "active"))
	add("degraded: revoked comes first", degraded, "token_revoked", where(ruleCase{NoDegraded: true}, ""), known(list{"j", jti, now + 100}))
	add("max_auth_age: as long ago", token, "", where(ruleCase{MaxAuthAge: 600}, ""))
	add("max_auth_age: a second longer ago", token, "insufficient_user_authentication", where(ruleCase{MaxAuthAge: 599}, ""), authAge(599))
	add("max_auth_age: not told", usual().without("auth_time").token(), "insufficient_user_authentication", where(ruleCase{MaxAuthAge: 600}, ""), authAge(600))
	add("max_auth_age: 5 s ahead", usual().with("auth_time", now+5).token(), "", where(ruleCase{MaxAuthAge: 600}, ""))
	add("max_auth_age: 6 s ahead", usual().with("auth_time", now+6).token(), "insufficient_user_authentication", where(ruleCase{MaxAuthAge: 600}, ""), authAge(600))
	add("scope", token, "", where(ruleCase{Scope: []string{"orders:write", "orders:read"}}, ""))
	add("scope: one is missing", token, "insufficient_scope", where(ruleCase{Scope: []string{"orders:read", "orders:delete"}}, ""), scoped("orders:read", "orders:delete"))
	add("scope: a part of one", token, "insufficient_scope", where(ruleCase{Scope: []string{"orders"}}, ""), scoped("orders"))
	add("scope: in another case", token, "insufficient_scope", where(ruleCase{Scope: []string{"Orders:read"}}, ""), scoped("Orders:read"))
	add("role", token, "", where(ruleCase{Roles: []string{"clerk", "admin"}}, ""))
	add("role: one is missing", token, "insufficient_scope", where(ruleCase{Roles: []string{"admin", "owner"}}, ""))
	add("role: there are none", usual().without("roles").token(), "insufficient_scope", where(ruleCase{Roles: []string{"admin"}}, ""))
	add("what mends comes first: too old before auth", token, "token_too_old", where(ruleCase{MaxTokenAge: 1, MaxAuthAge: 1, Scope: []string{"x"}, Roles: []string{"x"}}, ""))
	add("what mends comes first: auth before scope", token, "insufficient_user_authentication", where(ruleCase{MaxAuthAge: 1, Scope: []string{"x"}}, ""), authAge(1))
	add("what mends comes first: live before auth", token, "session_expired", where(ruleCase{Live: true, MaxAuthAge: 1}, "session_expired"))
}
