package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/counterfoil/counterfoil/internal/feed"
	"github.com/counterfoil/counterfoil/internal/jwk"
	"github.com/counterfoil/counterfoil/internal/private"
	"github.com/counterfoil/counterfoil/internal/revoked"
)

// cacheFormat is the version of the cache file. A reader passes over a file of
// another one, and over members it does not know.
const cacheFormat = 1

const maxCache = 64 << 20 // bytes

// cacheFile is what the cache file holds: public things only, but whoever can
// write it decides whose tokens are good.
type cacheFile struct {
	Format           int             `json:"format"`
	Issuer           string          `json:"issuer"`
	SavedAt          int64           `json:"saved_at"` // Unix seconds: when the keys were fetched
	MaxTokenLifetime int64           `json:"max_token_lifetime"`
	Keys             json.RawMessage `json:"keys"` // JWKS with cf_version, as published
	Metadata         json.RawMessage `json:"metadata,omitempty"`
	Revocations      json.RawMessage `json:"revocations"`
	// A verifier that follows the feed adds how far: every revocation that the
	// store had at FeedAt (Unix milliseconds) is in the file, or over.
	FeedAt   int64  `json:"feed_at,omitempty"`
	Position string `json:"position,omitempty"`
}

// loadCache takes the keys and revocations of an earlier run. Whatever is wrong with the file
// is logged and otherwise as if there were none.
func (r *remoteKeys) loadCache() {
	if r.cache == "" {
		return
	}
	switch err := r.readCache(); {
	case err == nil:
		r.log.Info("keys taken from the cache file", "file", r.cache, "fetched", r.set.Load().fetched, "revocations", r.table.Len())
	case errors.Is(err, fs.ErrNotExist):
	default:
		r.log.Warn("the cache file is passed over", "file", r.cache, "error", err)
	}
}

func (r *remoteKeys) readCache() error {
	data, err := private.Read(r.cache, maxCache)
	if err != nil {
		return err
	}
	var f cacheFile
	if err := json.Unmarshal(data, &f); err != nil {
		return err
	}
	switch {
	case f.Format != cacheFormat:
		return fmt.Errorf("it has format %d, not %d", f.Format, cacheFormat)
	case f.Issuer != r.issuer:
		return fmt.Errorf("it is of the issuer %q", f.Issuer)
	case f.MaxTokenLifetime < 1 || f.MaxTokenLifetime > int64(longestDiscovered/time.Second):
		return errors.New("max_token_lifetime is not a lifetime in seconds")
	}
	now, at := r.clock(), time.Unix(f.SavedAt, 0)
	if at.After(now) {
		at = now
	}
	if now.Sub(at) > r.maxAge {
		return fmt.Errorf("its keys are of %s, older than Config.MaxKeyAge", at.UTC().Format(time.RFC3339))
	}
	set, err := jwk.ParseSet(f.Keys)
	if err != nil {
		return err
	}
	if len(set.Keys) == 0 {
		return errors.New("it has no key of use")
	}
	entries, _, err := revoked.Decode(f.Revocations)
	if err != nil {
		return err
	}
	var pos feed.Position
	if r.feed != nil && f.Position != "" {
		if pos, err = feed.ParsePosition(f.Position); err != nil {
			return err
		}
	}
	lifetime := time.Duration(f.MaxTokenLifetime) * time.Second
	for i := range entries {
		// The clock may have been set since. What stays longer does no harm.
		if e := &entries[i]; !e.Until.IsZero() && e.Until.Before(now.Add(lifetime+retainMargin)) {
			e.Until = now.Add(lifetime + retainMargin)
		}
	}
	r.table.Apply(entries...)
	if r.feed != nil && f.FeedAt > 0 {
		r.feed.resume(pos, time.UnixMilli(f.FeedAt))
	}
	r.use(set, time.Duration(f.MaxTokenLifetime)*time.Second, at, source{f.Keys, f.Metadata})
	return nil
}

// saveCache writes what is in force. A failure costs the next start, not this
// run, so it is only logged.
func (r *remoteKeys) saveCache() {
	if r.cache == "" {
		return
	}
	r.saving.Lock()
	defer r.saving.Unlock()
	set := r.set.Load()
	if set == nil {
		return
	}
	var position string
	var feedAt int64
	if r.feed != nil {
		// Before the table is read: it may hold more than that.
		position, feedAt = r.feed.told()
	}
	f := cacheFile{
		Format:           cacheFormat,
		Issuer:           r.issuer,
		SavedAt:          set.fetched.Unix(),
		MaxTokenLifetime: int64(set.longest / time.Second),
		Keys:             set.source.keys,
		Metadata:         set.source.metadata,
		Revocations:      revoked.Encode(r.table.Snapshot()),
		FeedAt:           feedAt,
		Position:         position,
	}
	data, err := json.Marshal(f)
	if err == nil && len(data) > maxCache {
		// Without them the keys alone let nobody start who follows the feed.
		f.Revocations, f.FeedAt, f.Position = json.RawMessage("[]"), 0, ""
		r.log.Warn("there are too many revocations for the cache file: it holds keys only", "file", r.cache)
		data, err = json.Marshal(f)
	}
	if err == nil {
		err = private.Replace(r.cache, data)
	}
	if err != nil {
		r.log.Warn("the cache file could not be written", "file", r.cache, "error", err)
	}
}
