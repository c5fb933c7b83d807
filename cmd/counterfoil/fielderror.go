package main

import (
	"errors"
	"strings"

	"github.com/counterfoil/counterfoil"
)

// fieldFlags names the flag that fills a field of the library.
var fieldFlags = map[string]string{
	"Issuer":               "--issuer",
	"issuer":               "--issuer",
	"origin":               "--origin",
	"Audiences":            "--audience",
	"ClientID":             "--client-id",
	"MoreClientIDs":        "--more-client-id",
	"Algorithm":            "--algorithm",
	"TokenLifetime":        "--token-lifetime",
	"Degraded":             "--degraded",
	"DegradedSessions":     "--degraded-sessions",
	"Lifetimes":            "--session-absolute, --session-idle",
	"DeviceBinding.Window": "--bound-window",
	"name":                 "--name",
	"scope":                "--scope",
	"roles":                "--role",
	"client_id":            "--client-id",
	"expires_at":           "--expires",
	"reason":               "--reason",
	"subject":              "--subject",
	"limit":                "--limit",
	"after":                "--after",
	"email":                "e-mail address",
}

// flagError turns what the library says of a field into what the user typed.
func flagError(err error) error {
	field, ok := errors.AsType[*counterfoil.FieldError](err)
	if !ok {
		return err
	}
	name, _, _ := strings.Cut(field.Field, "[")
	flag, ok := fieldFlags[name]
	if !ok {
		return err
	}
	return usagef("%s: %s", flag, field.Message)
}
