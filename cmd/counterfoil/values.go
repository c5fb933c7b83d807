package main

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The kinds of values that flags have. Their errors say what is wanted; the
// name of the flag and the value are put before them.

type textValue string

func (v *textValue) String() string { return string(*v) }

func (v *textValue) Set(s string) error { *v = textValue(s); return nil }

type boolValue bool

func (v *boolValue) String() string { return strconv.FormatBool(bool(*v)) }

func (v *boolValue) Set(s string) error {
	b, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("want true or false")
	}
	*v = boolValue(b)
	return nil
}

type intValue int

func (v *intValue) String() string { return strconv.Itoa(int(*v)) }

func (v *intValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil {
		return errors.New("want a whole number")
	}
	*v = intValue(n)
	return nil
}

// durationValue also takes days: sessions live that long.
type durationValue time.Duration

func (v *durationValue) String() string {
	if *v == 0 {
		return ""
	}
	return shortDuration(time.Duration(*v))
}

func (v *durationValue) Set(s string) error {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		if err != nil {
			return errDuration
		}
		*v = durationValue(time.Duration(n) * day)
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return errDuration
	}
	*v = durationValue(d)
	return nil
}

const day = 24 * time.Hour

var errDuration = errors.New("want a duration such as 90s, 15m, 12h or 30d")

// listValue may come several times, each time with several values divided by
// commas.
type listValue []string

func (v *listValue) String() string { return strings.Join(*v, ",") }

func (v *listValue) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			return errors.New("a value of the list is empty")
		}
		*v = append(*v, part)
	}
	return nil
}

// choiceValue is one of a few words.
type choiceValue struct {
	value *string
	of    []string
}

func (v *choiceValue) String() string {
	if v.value == nil {
		return ""
	}
	return *v.value
}

func (v *choiceValue) Set(s string) error {
	if !slices.Contains(v.of, s) {
		return fmt.Errorf("want one of %s", strings.Join(v.of, ", "))
	}
	*v.value = s
	return nil
}

// networksValue are networks in CIDR form or single addresses.
type networksValue []netip.Prefix

func (v *networksValue) String() string {
	var all []string
	for _, p := range *v {
		all = append(all, p.String())
	}
	return strings.Join(all, ",")
}

func (v *networksValue) Set(s string) error {
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if addr, err := netip.ParseAddr(part); err == nil && addr.Zone() == "" {
			*v = append(*v, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(part)
		if err != nil {
			return fmt.Errorf("%q is not a network such as 10.0.0.0/8, nor an address", part)
		}
		if p.Masked() != p {
			return fmt.Errorf("%q has bits outside the network: did you mean %s?", part, p.Masked())
		}
		*v = append(*v, p)
	}
	return nil
}
