package pages

import (
	"strings"

	"github.com/mileusna/useragent"
)

// agent is what the user agent string of a device tells. Anybody can send any
// string: it is what the device says of itself, not what it is.
type agent struct {
	Name string // "Firefox on Windows"
	Kind string // computer, phone, tablet, program
	Raw  string
}

// most characters of a made-up name.
const maxAgentWord = 40

func agentOf(text string) agent {
	a := agent{Raw: text, Kind: "program"}
	ua := useragent.Parse(text)
	browser, system := agentWord(ua.Name), agentWord(ua.OS)
	switch {
	case ua.Tablet, ua.OS == useragent.Android && !strings.Contains(text, "Mobile"):
		a.Kind = "tablet"
	case ua.Mobile:
		a.Kind = "phone"
	case ua.Desktop:
		a.Kind = "computer"
	}
	switch device := agentWord(ua.Device); {
	case device == "iPhone" || device == "iPad":
		system = device
	case ua.OS == useragent.Linux && strings.Contains(text, "CrOS"):
		system = "ChromeOS"
	}
	switch {
	case browser != "" && system != "":
		a.Name = browser + " on " + system
	case browser != "":
		a.Name = browser
	case system != "":
		a.Name = "A device with " + system
	default:
		a.Name = "An unknown device"
	}
	return a
}

func agentWord(text string) string {
	text = strings.TrimSpace(text)
	if runes := []rune(text); len(runes) > maxAgentWord {
		return string(runes[:maxAgentWord]) + "…"
	}
	return text
}
