package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/counterfoil/counterfoil"
)

// seal is where the secret comes from that the signing keys are sealed with.
type seal struct {
	counterfoil.Seal
	where string // in words: a file, or the variable
	made  *newSeal
}

// newSeal is a secret that waits in a temporary file until it is known that
// the database has no keys that another one sealed.
type newSeal struct {
	path      string
	temporary string
}

// errSealAppeared says that another process made the seal file meanwhile.
var errSealAppeared = errors.New("the seal file was made by another process just now: start again")

const makeSecret = "make a secret with: head -c 32 /dev/urandom | base64"

// chooseSeal decides between --seal-file, COUNTERFOIL_SEAL, and the file
// beside a SQLite database, which is made when it is not there.
func chooseSeal(d *database, file, text string) (*seal, error) {
	switch {
	case file != "" && text != "":
		return nil, usagef("--seal-file and COUNTERFOIL_SEAL are both given: give one")
	case text != "":
		return &seal{Seal: counterfoil.SealText(text), where: "COUNTERFOIL_SEAL"}, nil
	case file == "" && !d.isSQLite():
		return nil, usagef("--seal-file or COUNTERFOIL_SEAL is required with PostgreSQL: every server must have the same one; %s", makeSecret)
	case file != "":
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("seal file %s: %w: mend the path, or %s", file, withoutPath(err), makeSecret)
		}
		return &seal{Seal: counterfoil.SealFile(file), where: file}, nil
	}
	file = d.path + ".seal"
	_, err := os.Stat(file)
	if err == nil {
		return &seal{Seal: counterfoil.SealFile(file), where: file}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("seal file %s: %w", file, withoutPath(err))
	}
	return makeSeal(file)
}

// makeSeal draws a secret and writes it beside where it will be.
func makeSeal(path string) (s *seal, err error) {
	var secret [32]byte
	rand.Read(secret[:])
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("make seal file %s: %w", path, withoutPath(err))
	}
	_, err = file.WriteString(base64.StdEncoding.EncodeToString(secret[:]) + "\n")
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("make seal file %s: %w", path, err), os.Remove(file.Name()))
	}
	return &seal{counterfoil.SealSecrets(secret[:]), path, &newSeal{path, file.Name()}}, nil
}

// keep puts a new secret in its place, unless the database has keys that it
// does not open. It is called once the database is open and before keys are
// made, so that there are never keys without their secret.
func (s *seal) keep(ctx context.Context, catalog counterfoil.Catalog) error {
	if s.made == nil {
		return nil
	}
	ring, err := catalog.Keys(ctx)
	if err != nil {
		return err
	}
	for _, k := range ring.Keys {
		if len(k.Sealed) > 0 {
			return &missingSealError{s.where}
		}
	}
	err = os.Link(s.made.temporary, s.made.path)
	switch {
	case errors.Is(err, fs.ErrExist):
		return errSealAppeared
	case err != nil:
		return fmt.Errorf("make seal file %s: %w", s.made.path, err)
	}
	return syncFolder(filepath.Dir(s.made.path))
}

// syncFolder makes a new name in a folder survive a power failure.
func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	_ = dir.Sync() // not every platform can
	return dir.Close()
}

// discard removes the temporary file.
func (s *seal) discard() error {
	if s.made == nil {
		return nil
	}
	return os.Remove(s.made.temporary)
}

// missingSealError says that the file is gone that seals the stored keys.
type missingSealError struct{ path string }

func (e *missingSealError) Error() string {
	return fmt.Sprintf("seal file %s is missing, and the signing keys in the database were sealed with it: put it back, or name it with --seal-file or COUNTERFOIL_SEAL", e.path)
}
