package main

import (
	"errors"
	"fmt"
	"strings"
)

// configLine is one setting of a configuration file.
type configLine struct {
	number int
	name   string
	value  string
}

// parseConfig reads a configuration file: `name = value` lines, blank lines,
// and comments that begin with #. A value may be quoted with ""; there are no
// escapes. A setting that is a list may come several times, or take a list
// divided by commas.
func parseConfig(text string) ([]configLine, error) {
	var lines []configLine
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok || name == "" {
			return nil, fmt.Errorf("line %d: %q is not a setting: write name = value", number, line)
		}
		value, err := unquote(value)
		if err != nil {
			return nil, fmt.Errorf("line %d: %s: %w", number, name, err)
		}
		lines = append(lines, configLine{number, name, value})
	}
	return lines, nil
}

func unquote(value string) (string, error) {
	if !strings.HasPrefix(value, `"`) {
		return value, nil
	}
	if len(value) < 2 || !strings.HasSuffix(value, `"`) || strings.Contains(value[1:len(value)-1], `"`) {
		return "", errors.New("the quotes do not match")
	}
	return value[1 : len(value)-1], nil
}
