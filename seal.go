package counterfoil

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Seal encrypts signing keys at rest (AES-256-GCM). It may hold several
// secrets: the first seals, each opens what it sealed. A Seal redacts itself.
type Seal struct {
	// load opens the secrets. sealed says that the store holds keys already:
	// then no new secret is made.
	load func(sealed bool) ([]sealKey, error)
}

type sealKey struct {
	id   string // first 8 bytes of SHA-256 of the secret, in hex: names it without telling it
	aead cipher.AEAD
	mac  [sha256.Size]byte // a key of its own, for what is stamped and not hidden
}

const sealSize = 32

// ErrWrongSeal says that none of the given secrets opens the stored keys.
// Nothing was changed; give the secret they were sealed with.
var ErrWrongSeal = errors.New("the seal does not open the stored signing keys")

func (Seal) String() string   { return "[seal]" }
func (Seal) GoString() string { return "[seal]" }

// SealSecrets seals with 32-byte secrets, the newest first.
func SealSecrets(secrets ...[]byte) Seal {
	return Seal{load: func(bool) ([]sealKey, error) { return sealKeys(secrets) }}
}

// SealText seals with base64 secrets of 32 bytes each, the newest first,
// separated by commas: the form of COUNTERFOIL_SEAL.
func SealText(text string) Seal {
	return Seal{load: func(bool) ([]sealKey, error) { return parseSeal(text) }}
}

// SealFile seals with the secrets in a file (the form of [SealText], one a
// line or separated by commas). When the file does not exist it is made, mode
// 0600, with a new secret, but only for a store that holds no keys yet: a
// lost seal is [ErrWrongSeal].
func SealFile(path string) Seal {
	return Seal{load: func(sealed bool) ([]sealKey, error) {
		text, err := readOrMakeSeal(path, sealed)
		if err != nil {
			return nil, err
		}
		keys, err := parseSeal(text)
		if err != nil {
			return nil, fmt.Errorf("seal file %s: %w", path, err)
		}
		return keys, nil
	}}
}

func readOrMakeSeal(path string, sealed bool) (string, error) {
	data, err := os.ReadFile(path)
	if err == nil {
		return string(data), checkSealMode(path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read seal file: %w", err)
	}
	if sealed {
		return "", fmt.Errorf("%w: %s is missing, put it back", ErrWrongSeal, path)
	}
	var secret [sealSize]byte
	rand.Read(secret[:])
	text := base64.StdEncoding.EncodeToString(secret[:]) + "\n"
	// Written whole beside it and linked into place: two processes that start
	// together end with one secret, and a crash leaves none half-written.
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return "", fmt.Errorf("make seal file: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // the link below stays
	_, err = tmp.WriteString(text)
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return "", fmt.Errorf("make seal file: %w", err)
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			data, err := os.ReadFile(path)
			return string(data), err
		}
		return "", fmt.Errorf("make seal file: %w", err)
	}
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync() // best effort: not every platform can sync a folder
		_ = dir.Close()
	}
	return text, nil
}

func checkSealMode(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read seal file: %w", err)
	}
	if os.PathSeparator == '/' && info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("seal file %s is readable by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	return nil
}

func parseSeal(text string) ([]sealKey, error) {
	var secrets [][]byte
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' || r == ' ' }) {
		secret, err := base64.StdEncoding.DecodeString(part)
		if err != nil || len(secret) != sealSize {
			return nil, fmt.Errorf("a seal secret must be base64 of %d bytes (make one with: head -c 32 /dev/urandom | base64)", sealSize)
		}
		secrets = append(secrets, secret)
	}
	return sealKeys(secrets)
}

func sealKeys(secrets [][]byte) ([]sealKey, error) {
	if len(secrets) == 0 {
		return nil, errors.New("the seal holds no secret")
	}
	keys := make([]sealKey, 0, len(secrets))
	for _, secret := range secrets {
		if len(secret) != sealSize {
			return nil, fmt.Errorf("a seal secret must have %d bytes, not %d", sealSize, len(secret))
		}
		block, err := aes.NewCipher(secret)
		if err != nil {
			return nil, err
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return nil, err
		}
		sum := sha256.Sum256(append([]byte("counterfoil seal id\x00"), secret...))
		stamp := hmac.New(sha256.New, secret)
		stamp.Write([]byte("counterfoil stamp"))
		keys = append(keys, sealKey{id: hex.EncodeToString(sum[:8]), aead: aead, mac: [sha256.Size]byte(stamp.Sum(nil))})
	}
	return keys, nil
}

const sealVersion = "1"

// sealed: "1." + id of the secret + "." + nonce and ciphertext. The context
// (the key's kid) is authenticated, so that rows cannot be swapped.
func seal(keys []sealKey, context string, plain []byte) []byte {
	k := keys[0]
	head := sealVersion + "." + k.id + "."
	nonce := make([]byte, k.aead.NonceSize())
	rand.Read(nonce)
	out := append([]byte(head), nonce...)
	return k.aead.Seal(out, nonce, plain, []byte(head+context))
}

func unseal(keys []sealKey, context string, sealed []byte) ([]byte, error) {
	parts := strings.SplitN(string(sealed), ".", 3)
	if len(parts) != 3 || parts[0] != sealVersion {
		return nil, fmt.Errorf("%w: unknown form (is the database from a newer version?)", ErrWrongSeal)
	}
	for _, k := range keys {
		if k.id != parts[1] {
			continue
		}
		body := []byte(parts[2])
		if len(body) < k.aead.NonceSize() {
			break
		}
		nonce, ct := body[:k.aead.NonceSize()], body[k.aead.NonceSize():]
		plain, err := k.aead.Open(nil, nonce, ct, []byte(parts[0]+"."+parts[1]+"."+context))
		if err != nil {
			return nil, fmt.Errorf("%w: the stored key was altered", ErrWrongSeal)
		}
		return plain, nil
	}
	return nil, fmt.Errorf("%w: they were sealed with secret %.16s", ErrWrongSeal, parts[1])
}
