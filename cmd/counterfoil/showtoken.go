package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// showToken prints a report for people.
func showToken(p *printer, t *token, report *inspection) {
	rows := [][]cell{{text("header"), text(headerWords(t.header))}}
	shown := map[string]bool{}
	add := func(claim, label, value string) {
		shown[claim] = true
		if _, ok := t.claims[claim]; ok {
			rows = append(rows, []cell{text(label), text(value)})
		}
	}
	plainText := func(claim string) string { return jsonText(t.claims[claim]) }
	add("iss", "issuer", plainText("iss"))
	add("aud", "audience", plainText("aud"))
	add("sub", "subject", plainText("sub"))
	add("client_id", "application", plainText("client_id"))
	add("sid", "session", plainText("sid"))
	add("iat", "issued", p.when(t.time("iat")))
	add("exp", "expires", p.when(t.time("exp")))
	add("auth_time", "signed in", p.when(t.time("auth_time"))+withMethods(t.claims["amr"]))
	shown["amr"] = true
	add("roles", "roles", plainText("roles"))
	add("scope", "scope", plainText("scope"))
	add("epoch", "epoch", plainText("epoch"))
	add("jti", "token id", plainText("jti"))
	var own []string
	for name := range t.claims {
		if !shown[name] {
			own = append(own, name)
		}
	}
	slices.Sort(own)
	for _, name := range own {
		rows = append(rows, []cell{text(name), text(jsonText(t.claims[name]))})
	}
	for i := range rows {
		rows[i][0].style = dim
	}
	p.columns("", rows)
	p.printf("\n")
	showSignature(p, report)
	p.printf("\nWould a route take it?\n")
	p.columns("  ", verdictRows(report.Routes))
}

func showSignature(p *printer, report *inspection) {
	switch report.Signature {
	case signatureGood:
		p.printf("Signature %s, checked with %s.\n", p.paint(good, "good"), printable(report.Checked))
	case signatureBad:
		p.printf("%s by %s: %s.\n", p.paint(bad, "REFUSED"), printable(report.Checked), printable(report.Problem))
	default:
		p.printf("%s: anybody may have written this. ", p.paint(warning, "SIGNATURE NOT CHECKED"))
		if report.Problem != "" {
			p.printf("%s could not be asked: %s.\n", printable(report.Checked), printable(report.Problem))
			return
		}
		p.printf("Give --issuer, --authority or --database.\n")
	}
}

func verdictRows(routes []verdict) (rows [][]cell) {
	for _, v := range routes {
		answer := styled(warning, "unknown")
		if v.Taken != nil {
			answer = styled(good, "yes")
			if !*v.Taken {
				answer = styled(bad, "no")
			}
		}
		why := v.Why
		if v.Code != "" {
			why = strings.TrimSuffix(v.Code+": "+why, ": ")
		}
		rows = append(rows, []cell{text(v.Rule), answer, text(why)})
	}
	return rows
}

func headerWords(header map[string]any) string {
	var words []string
	for _, name := range []string{"typ", "alg", "kid"} {
		if v, ok := header[name]; ok {
			words = append(words, name+" "+jsonText(v))
		}
	}
	for name := range header {
		if !slices.Contains([]string{"typ", "alg", "kid"}, name) {
			words = append(words, name+" "+jsonText(header[name]))
		}
	}
	slices.Sort(words[min(3, len(words)):])
	return strings.Join(words, ", ")
}

func withMethods(amr any) string {
	list, _ := amr.([]any)
	var methods []string
	for _, m := range list {
		if s, ok := m.(string); ok {
			methods = append(methods, s)
		}
	}
	if len(methods) == 0 {
		return ""
	}
	return " with " + methodWords(methods)
}

// jsonText shows a string as it is, a list of strings with spaces, and
// anything else as JSON.
func jsonText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var words []string
		for _, e := range v {
			words = append(words, jsonText(e))
		}
		return strings.Join(words, " ")
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}
