package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/counterfoil/counterfoil"
)

func doctorCommand() *command {
	return &command{
		name:  "doctor",
		short: "Look for what is wrong, or will be, and say what to do",
		long: `Takes the flags, environment and file of serve, and looks at what serve would use:
clock, certificate, seal and signing keys, cookie domain, database, settings that
contradict each other. With --authority also at running servers; their feed wants an
API key with scope verify in COUNTERFOIL_API_KEY.

It only reads: nothing is made, migrated or repaired. Run it as the user that serve
runs as. It exits with 1 when a check fails, with 0 when there are only warnings.`,
		examples: []string{
			"counterfoil doctor --config /etc/counterfoil.conf",
			"counterfoil doctor --config /etc/counterfoil.conf --authority http://10.0.0.1:8700,http://10.0.0.2:8700",
			"counterfoil doctor --config /etc/counterfoil.conf --json",
		},
		setup: func(a *app, f *flags) func(context.Context, []string) error {
			s := newServeFlags(f)
			var authorities listValue
			f.add(&authorities, "authority", "URL", "running server to look at too; several by comma, one for each node")
			asJSON := jsonFlag(f)
			return func(ctx context.Context, args []string) error {
				if err := noArgs(args); err != nil {
					return err
				}
				if s.dev {
					return usagef("--dev keeps everything in memory: there is nothing to look at")
				}
				p, err := newPatient(a, s, authorities)
				if err != nil {
					return err
				}
				findings := p.examine(ctx)
				if err := errors.Join(showFindings(newPrinter(a), p, findings, bool(*asJSON)), p.close()); err != nil {
					return err
				}
				return failures(findings)
			}
		},
	}
}

// patient is what the doctor looks at: flags as they were given, and what
// checks learned that later ones need.
type patient struct {
	app         *app
	flags       *serveFlags
	authorities []string
	apiKey      string
	sealText    string
	http        *http.Client
	roots       *x509.CertPool   // nil: the system's
	now         func() time.Time // this machine's clock

	database *database            // nil: the flag cannot be read
	opened   bool                 // its tables can be read
	schema   int                  // its version
	ring     *counterfoil.KeyRing // nil: not read
	head     counterfoil.FeedHead
	config   *counterfoil.Config // nil: the settings do not hold together
}

func newPatient(a *app, s *serveFlags, authorities []string) (*patient, error) {
	p := &patient{app: a, flags: s, authorities: authorities, now: time.Now}
	for i, at := range p.authorities {
		base, err := authorityURL(at)
		if err != nil {
			return nil, err
		}
		p.authorities[i] = base
	}
	p.apiKey, _ = a.lookupEnv(apiKeyVariable)
	p.sealText, _ = a.lookupEnv(sealVariable)
	p.http = newHealthClient(doctorTimeout)
	p.trust(nil)
	return p, nil
}

// doctorTimeout bounds each question to a server.
const doctorTimeout = 5 * time.Second

// examination is one part of what the doctor does: a heading and its checks.
type examination struct {
	group string
	check func(context.Context, *patient) []finding
}

// examinations in their order: each may use what those before it learned.
func examinations() []examination {
	return []examination{
		{"settings", checkSettings},
		{"certificate", checkCertificate},
		{"database", checkDatabase},
		{"sessions", checkSessions},
		{"clock", checkClock},
		{"keys", checkKeys},
		{"feed", checkFeed},
		{"API keys", checkAPIKeys},
		{"issuer", checkIssuer},
		{"servers", checkServers},
	}
}

func (p *patient) examine(ctx context.Context) (all []finding) {
	for _, e := range examinations() {
		for _, f := range e.check(ctx, p) {
			if f.Group == "" {
				f.Group = e.group
			}
			all = append(all, f)
		}
	}
	return all
}

func (p *patient) close() error {
	if p.database == nil {
		return nil
	}
	var err error
	if p.database.store != nil {
		err = p.database.store.Close()
	}
	return errors.Join(err, p.database.close())
}

// failures is the error that the command ends with.
func failures(findings []finding) error {
	failed := 0
	for _, f := range findings {
		if f.Status == statusFail {
			failed++
		}
	}
	switch failed {
	case 0:
		return nil
	case 1:
		return errors.New("doctor: 1 check failed, see above")
	}
	return fmt.Errorf("doctor: %d checks failed, see above", failed)
}
