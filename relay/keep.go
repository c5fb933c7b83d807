package relay

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/counterfoil/counterfoil/internal/private"
)

const (
	readersFormat  = 1
	maxReadersFile = 8 << 20
)

// readersFile is what FILE.readers holds: hashes of API keys that were good. It
// lets readers come back to a relay that was restarted while nobody can be asked.
type readersFile struct {
	Format  int           `json:"format"`
	Issuer  string        `json:"issuer"`
	Readers []savedReader `json:"readers"`
}

type savedReader struct {
	Hash string `json:"sha256"`
	Good int64  `json:"good"` // Unix seconds: when the authority said so
}

// load takes the answers of an earlier run. A file that is no good is as none.
func (r *readers) load() {
	if r.file == "" {
		return
	}
	if err := r.read(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("the file of readers' API keys is passed over", "file", r.file, "error", err)
	}
}

func (r *readers) read() error {
	data, err := private.Read(r.file, maxReadersFile)
	if err != nil {
		return err
	}
	var f readersFile
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	if f.Format != readersFormat || f.Issuer != r.issuer {
		return fmt.Errorf("it has format %d and is of the issuer %q", f.Format, f.Issuer)
	}
	now := time.Now()
	for _, s := range f.Readers {
		var hash keyHash
		if n, err := hex.Decode(hash[:], []byte(s.Hash)); err != nil || n != len(hash) || len(s.Hash) != 2*len(hash) {
			return errors.New("a hash in it is none")
		}
		asked := time.Unix(s.Good, 0)
		if asked.After(now) {
			asked = now // the clock was set
		}
		r.known[hash] = &reader{asked: asked}
	}
	return nil
}

// save writes the file if there is something new.
func (r *readers) save() error {
	if r.file == "" {
		return nil
	}
	f := readersFile{Format: readersFormat, Issuer: r.issuer, Readers: []savedReader{}}
	now := time.Now()
	r.mu.Lock()
	changed := r.changed
	r.changed = false
	for hash, e := range r.known {
		if e.serves(now) {
			f.Readers = append(f.Readers, savedReader{hex.EncodeToString(hash[:]), e.asked.Unix()})
		}
	}
	r.mu.Unlock()
	if !changed {
		return nil
	}
	data, err := json.Marshal(f)
	if err == nil {
		err = private.Replace(r.file, data)
	}
	return err
}
