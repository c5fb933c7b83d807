package directory

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Argon2id are the parameters of the password hash (RFC 9106). A raised
// parameter reaches each user with the next sign-in.
type Argon2id struct {
	Memory      uint32 // KiB that one hash fills
	Time        uint32 // passes over that memory
	Parallelism uint8  // lanes; more than 1 uses more cores for one hash
}

// DefaultArgon2id are 46 MiB, two passes, one lane: twice the work of the
// least that is advised for that memory, about a tenth of a second on one core of a
// small server. One lane, because it is the cap on parallel hashes that
// decides how many cores sign-ins may take.
var DefaultArgon2id = Argon2id{Memory: 46 << 10, Time: 2, Parallelism: 1}

const (
	minMemory = 19 << 10 // KiB, with two passes
	maxMemory = 1 << 20  // KiB
	maxTime   = 64
	maxLanes  = 16
	saltLen   = 16
	keyLen    = 32
)

// tooWeak: at least 19 MiB, and at least the work of two passes over 19 MiB.
func (p Argon2id) tooWeak() bool {
	return p.Memory < minMemory || uint64(p.Memory)*uint64(p.Time) < 2*minMemory
}

func (p Argon2id) outOfRange() bool {
	return p.Time < 1 || p.Time > maxTime || p.Parallelism < 1 || p.Parallelism > maxLanes ||
		p.Memory > maxMemory || p.Memory < 8*uint32(p.Parallelism)
}

// phc is an argon2id hash with its salt and parameters.
type phc struct {
	Argon2id
	salt []byte
	key  []byte
}

var errNotPHC = errors.New("not an argon2id hash in PHC form")

// parsePHC reads $argon2id$v=19$m=…,t=…,p=…$salt$key in its one spelling:
// this order, no leading zeros, base64 without padding.
func parsePHC(text string) (phc, error) {
	fields := strings.Split(text, "$")
	if len(text) > 512 || len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" || fields[2] != "v=19" {
		return phc{}, errNotPHC
	}
	params := strings.Split(fields[3], ",")
	if len(params) != 3 {
		return phc{}, errNotPHC
	}
	memory, err1 := parseParam(params[0], "m=", 32)
	passes, err2 := parseParam(params[1], "t=", 32)
	lanes, err3 := parseParam(params[2], "p=", 8)
	salt, err4 := parseBase64(fields[4], 8, 64)
	key, err5 := parseBase64(fields[5], 16, 64)
	if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
		return phc{}, err
	}
	h := phc{Argon2id{uint32(memory), uint32(passes), uint8(lanes)}, salt, key}
	if h.outOfRange() {
		return phc{}, fmt.Errorf("%w: parameters out of range", errNotPHC)
	}
	return h, nil
}

func parseParam(text, name string, bits int) (uint64, error) {
	digits, ok := strings.CutPrefix(text, name)
	if !ok || digits == "" || digits[0] == '0' || digits[0] == '+' {
		return 0, errNotPHC
	}
	v, err := strconv.ParseUint(digits, 10, bits)
	if err != nil {
		return 0, fmt.Errorf("%w: parameter %s", errNotPHC, name)
	}
	return v, nil
}

func parseBase64(text string, shortest, longest int) ([]byte, error) {
	if strings.ContainsAny(text, "\r\n") { // the decoder would skip them
		return nil, errNotPHC
	}
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) < shortest || len(b) > longest {
		return nil, fmt.Errorf("%w: salt or key", errNotPHC)
	}
	return b, nil
}

func (h phc) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.Memory, h.Time, h.Parallelism,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

// hashPassword is the slow part; callers hold a slot of the hasher.
func hashPassword(p Argon2id, password []byte) phc {
	salt := make([]byte, saltLen)
	rand.Read(salt) // never fails: crypto/rand aborts the program instead
	return phc{p, salt, argon2.IDKey(password, salt, p.Time, p.Memory, p.Parallelism, keyLen)}
}

// matches is as slow as hashPassword.
func (h phc) matches(password []byte) bool {
	got := argon2.IDKey(password, h.salt, h.Time, h.Memory, h.Parallelism, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(got, h.key) == 1
}

// unmatchable is a hash that costs as much to check as a real one and that no
// password matches: what a user who does not exist is compared with.
func unmatchable(p Argon2id) phc {
	h := phc{p, make([]byte, saltLen), make([]byte, keyLen)}
	rand.Read(h.salt)
	rand.Read(h.key)
	return h
}
