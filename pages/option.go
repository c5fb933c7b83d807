package pages

import (
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/httpapi"
)

// Option changes what [Handler] serves. A wrong one panics when the handler is built.
type Option func(*site)

// WithName is the application's name, on every page. At most 60 characters.
func WithName(name string) Option {
	mustText("WithName", name, maxName)
	return func(s *site) { s.name = name }
}

// WithHelp is a sentence that says whom to ask: shown to who forgot the
// password where no mail is sent, and to who was signed out by others. Such as
// "Write to help@app.example." At most 300 characters.
func WithHelp(sentence string) Option {
	mustText("WithHelp", sentence, 300)
	return func(s *site) { s.help = sentence }
}

// WithNext is where a sign-in leads that came from nowhere, such as "/";
// default the devices.
func WithNext(target string) Option {
	return func(s *site) { s.home = target }
}

// WithRedirectOrigins are other origins that the parameter next may lead to
// after a sign-in, each as "https://app.example". The pages' own origin needs
// no mention.
func WithRedirectOrigins(origins ...string) Option {
	for _, origin := range origins {
		if err := httpapi.CheckOrigin(origin); err != nil {
			panic("pages: WithRedirectOrigins: " + err.Error())
		}
	}
	return func(s *site) { s.origins = append(s.origins, origins...) }
}

// WithClientID serves the pages for one of the authority's applications;
// default the first.
func WithClientID(id string) Option {
	return func(s *site) { s.clientID = id }
}

// WithDeviceAPI says where [httpapi.Device] is mounted at this host, such as
// "/auth". Browsers that can bind a session to a key of the device are then
// offered to do so at a sign-in here too ([counterfoil.DeviceBinding]).
func WithDeviceAPI(prefix string) Option {
	prefix = mustPrefix("WithDeviceAPI", prefix)
	return func(s *site) { s.deviceAPI = prefix }
}

// WithoutSignUp leaves the page out that makes new users.
func WithoutSignUp() Option {
	return func(s *site) { s.signUp = false }
}

// WithReason is what users are told when a session ended for a reason of the
// application's own: one or two sentences, at most 300 characters.
func WithReason(reason counterfoil.Reason, sentence string) Option {
	mustText("WithReason", sentence, 300)
	return func(s *site) { s.reasons[reason] = sentence }
}

// WithCookiesKept has sign-out clear the cookies of the session only. Without
// it all cookies of the site go (Clear-Site-Data), also those that the
// application set: nothing of the user stays behind on a shared computer.
func WithCookiesKept() Option {
	return func(s *site) { s.keeps = true }
}

// WithLogger is where failures are logged; default that of the authority.
func WithLogger(log *slog.Logger) Option {
	if log == nil {
		panic("pages: WithLogger: a logger is needed")
	}
	return func(s *site) { s.log = log }
}

// ValidName says whether [WithName] takes the name: for one that comes from a
// configuration.
func ValidName(name string) bool { return line(name, maxName) }

const maxName = 60

func line(text string, most int) bool {
	return text != "" && utf8.ValidString(text) && utf8.RuneCountInString(text) <= most && !strings.ContainsFunc(text, unicode.IsControl)
}

func mustText(option, text string, most int) {
	if !line(text, most) {
		panic(fmt.Sprintf("pages: %s: want 1 to %d characters on one line, not %q", option, most, text))
	}
}

// Theme are colours, as CSS writes them (#2f7d6b, rgb(47 125 107), oklch(…));
// empty ones stay as they are. Text wants a contrast of 4.5 to 1 to what it
// stands on: Ink and Soft on Paper, Sheet and Stub, OnAccent on Accent.
type Theme struct {
	Paper    string // the page
	Sheet    string // the right half of the ticket, and fields
	Stub     string // its left half
	Ink      string // text
	Soft     string // lesser text
	Line     string // rules between things
	Accent   string // buttons and links
	OnAccent string // text on them
	Focus    string // the ring around what has the keyboard
}

var colour = regexp.MustCompile(`^(#[0-9a-fA-F]{3,8}|[a-z]{3,20}|(rgb|rgba|hsl|hsla|oklch|oklab|lab|lch)\([0-9a-z .,/%+-]{1,60}\))$`)

func (t *Theme) variables() [][2]string {
	return [][2]string{
		{"paper", t.Paper}, {"sheet", t.Sheet}, {"stub", t.Stub}, {"ink", t.Ink}, {"soft", t.Soft},
		{"line", t.Line}, {"accent", t.Accent}, {"on-accent", t.OnAccent}, {"focus", t.Focus},
	}
}

func (t *Theme) css() string {
	var b strings.Builder
	b.WriteString(":root {")
	for _, v := range t.variables() {
		if v[1] != "" {
			fmt.Fprintf(&b, " --%s: %s;", v[0], v[1])
		}
	}
	b.WriteString(" }\n")
	return b.String()
}

// WithTheme gives the pages other colours, by day and by night (the user's
// browser says which). Whoever sets Accent for one should do so for both.
func WithTheme(light, dark Theme) Option {
	for _, theme := range []Theme{light, dark} {
		for _, v := range theme.variables() {
			if v[1] != "" && !colour.MatchString(v[1]) {
				panic(fmt.Sprintf("pages: WithTheme: %s: %q is no colour", v[0], v[1]))
			}
		}
	}
	return func(s *site) { s.light, s.dark = light, dark }
}
