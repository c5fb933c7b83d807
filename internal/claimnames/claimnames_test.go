package claimnames

import "testing"

func TestSEC61ReservedNames(t *testing.T) {
	for _, tc := range []struct {
		name            string
		folds, reserved bool
	}{
		{"sub", false, true},
		{"SUB", true, true},
		{"Sub", true, true},
		{"\u017Fub", true, true},  // long s
		{"\u212Aid", true, true},  // Kelvin sign
		{"Client_ID", true, true}, // not only the short ones
		{"cnf", false, true},
		{"epoch", false, true},
		{"cf_plan", false, true},
		{"CF_plan", false, true},
		{"plan", false, false},
		{"subject", false, false},
		{"groups", false, false},
		{"ſubject", false, false},
		{"", false, false},
	} {
		if Folds(tc.name) != tc.folds || Reserved(tc.name) != tc.reserved {
			t.Errorf("%q: %v %v", tc.name, Folds(tc.name), Reserved(tc.name))
		}
	}
}
