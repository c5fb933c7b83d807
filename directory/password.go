package directory

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/counterfoil/counterfoil"
	"github.com/counterfoil/counterfoil/verify"
)

// maxPassword bounds a password in bytes, as sent. Nothing is cut off: a
// longer one is refused.
const maxPassword = 1024

// breachTimeout bounds one call of Config.Breached.
const breachTimeout = 2 * time.Second

// passwordRules say which new passwords are taken. There are no rules of
// composition and no expiry (NIST SP 800-63B-4 section 3.1.1.2).
type passwordRules struct {
	minLength int
	words     map[string]bool // guessed first; lower case, at least three letters
	banned    map[string]bool // whole passwords, lower case
	breached  func(ctx context.Context, password string) (bool, error)
	mustAsk   bool // an error of breached refuses the password
	log       *slog.Logger
}

func newPasswordRules(c Config) (*passwordRules, error) {
	r := &passwordRules{
		minLength: c.MinPasswordLength, words: make(map[string]bool), banned: make(map[string]bool),
		breached: c.Breached, mustAsk: c.BreachedRequired, log: c.Logger,
	}
	words := io.MultiReader(strings.NewReader(commonWords), strings.NewReader("\n"+strings.Join(c.ContextWords, "\n")))
	if err := readWords(words, r.words); err != nil {
		return nil, &counterfoil.FieldError{Field: "ContextWords", Message: err.Error()}
	}
	if c.BannedPasswords != nil {
		if err := readWords(c.BannedPasswords, r.banned); err != nil {
			return nil, &counterfoil.FieldError{Field: "BannedPasswords", Message: err.Error()}
		}
	}
	return r, nil
}

// normalPassword gives the form that is hashed: NFC, so that keyboards that
// compose letters differently agree.
func normalPassword(field, password string) ([]byte, error) {
	switch {
	case password == "":
		return nil, &counterfoil.FieldError{Field: field, Message: "is required"}
	case len(password) > maxPassword:
		return nil, &counterfoil.FieldError{Field: field, Message: fmt.Sprintf("must be at most %d bytes", maxPassword)}
	case !utf8.ValidString(password):
		return nil, &counterfoil.FieldError{Field: field, Message: "must be valid UTF-8"}
	}
	return norm.NFC.Bytes([]byte(password)), nil
}

// accept returns the normalised form of a new password, or a
// [*counterfoil.FieldError] that says what to choose instead.
func (r *passwordRules) accept(ctx context.Context, field, password, emailKey string) ([]byte, error) {
	normal, err := normalPassword(field, password)
	if err != nil {
		return nil, err
	}
	refuse := func(message string) ([]byte, error) {
		return nil, &counterfoil.FieldError{Field: field, Message: message}
	}
	if utf8.RuneCount(normal) < r.minLength {
		return refuse(fmt.Sprintf("must have at least %d characters; a few unrelated words do well", r.minLength))
	}
	text := strings.ToLower(string(normal))
	if r.banned[text] || guessableUnits(text, r.words, contextWords(emailKey)) < minUnits {
		return refuse("is too easy to guess: leave out the e-mail address, well-known passwords, repetitions and runs like 1234 or qwerty")
	}
	if r.breached != nil {
		ctx, cancel := context.WithTimeout(ctx, breachTimeout)
		defer cancel()
		switch bad, err := r.breached(ctx, string(normal)); {
		case err != nil && r.mustAsk:
			return nil, fmt.Errorf("%w: breached passwords cannot be looked up: %w", verify.ErrUnavailable, err)
		case err != nil:
			r.log.WarnContext(ctx, "breached passwords cannot be looked up; the password was taken after the local checks", "error", err)
		case bad:
			return refuse("is in a public list of stolen passwords: choose another")
		}
	}
	return normal, nil
}

//go:embed common.txt
var commonWords string

// readWords reads one entry a line, lower-cased; # starts a comment line.
func readWords(from io.Reader, into map[string]bool) error {
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		word := strings.TrimSpace(lines.Text())
		if word != "" && word[0] != '#' {
			into[norm.NFC.String(strings.ToLower(word))] = true
		}
	}
	return lines.Err()
}

// contextWords are what the address itself gives away.
func contextWords(emailKey string) map[string]bool {
	words := make(map[string]bool)
	local, domain, ok := strings.Cut(emailKey, "@")
	if !ok {
		return words
	}
	parts := strings.FieldsFunc(local, notWord)
	words[emailKey], words[domain], words[local], words[strings.Join(parts, "")] = true, true, true, true
	for _, part := range append(parts, strings.FieldsFunc(domain, notWord)...) {
		words[part] = true
	}
	return words // wordAt takes none of less than three letters
}

func notWord(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }

// minUnits is the least number of units that a guesser must get right.
const minUnits = 6

// guessableUnits counts what a guesser would have to choose: a known word, a
// repetition and a run on the keyboard or in the alphabet are one each, any
// other character is one. It is a coarse sieve for the passwords that every
// guesser tries first, not a measure of strength.
func guessableUnits(text string, lists ...map[string]bool) int {
	runes := []rune(text)
	runes = runes[:period(runes)]
	plain := [][]rune{runes, unleet(runes, 'i'), unleet(runes, 'l')}
	units := 0
	for i := 0; i < len(runes); units++ {
		i += max(1, wordAt(plain, i, lists), runAt(runes, i))
	}
	return units
}

// period is the length of the shortest beginning that, repeated, gives the
// whole text (the last repetition may be cut short).
func period(runes []rune) int {
	// border[i] is the length of the longest proper border of runes[:i].
	border := make([]int, len(runes)+1)
	for i, k := 1, 0; i < len(runes); i++ {
		for k > 0 && runes[i] != runes[k] {
			k = border[k]
		}
		if runes[i] == runes[k] {
			k++
		}
		border[i+1] = k
	}
	if p := len(runes) - border[len(runes)]; 2*p <= len(runes) {
		return p
	}
	return len(runes)
}

var leet = map[rune]rune{'@': 'a', '4': 'a', '3': 'e', '0': 'o', '$': 's', '5': 's', '7': 't', '!': 'i'}

func unleet(runes []rune, one rune) []rune {
	plain := make([]rune, len(runes))
	for i, r := range runes {
		switch to, ok := leet[r]; {
		case ok:
			plain[i] = to
		case r == '1':
			plain[i] = one
		default:
			plain[i] = r
		}
	}
	return plain
}

const longestWord = 64

// wordAt is the length of the longest known word that starts at i.
func wordAt(spellings [][]rune, i int, lists []map[string]bool) int {
	for n := min(longestWord, len(spellings[0])-i); n >= 3; n-- {
		for _, runes := range spellings {
			word := string(runes[i : i+n])
			for _, list := range lists {
				if list[word] {
					return n
				}
			}
		}
	}
	return 0
}

var keyRows = []string{"`1234567890-=", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./", "qwertzuiopü", "yxcvbnm,.-", "azertyuiop", "qsdfghjklm"}

// runAt is the length of the run that starts at i, at least three: one
// character repeated, neighbours in the alphabet or neighbours on a keyboard.
func runAt(runes []rune, i int) int {
	longest := 0
	for _, follows := range []func(a, b rune) bool{
		func(a, b rune) bool { return a == b },
		func(a, b rune) bool { return b == a+1 },
		func(a, b rune) bool { return b == a-1 },
		func(a, b rune) bool { return onKeyboard(a, b) },
		func(a, b rune) bool { return onKeyboard(b, a) },
	} {
		n := 1
		for i+n < len(runes) && follows(runes[i+n-1], runes[i+n]) {
			n++
		}
		longest = max(longest, n)
	}
	if longest < 3 {
		return 0
	}
	return longest
}

func onKeyboard(a, b rune) bool {
	for _, row := range keyRows {
		if _, after, ok := strings.Cut(row, string(a)); ok {
			if next, _ := utf8.DecodeRuneInString(after); next == b && after != "" {
				return true
			}
		}
	}
	return false
}
