package redisstore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/rueidis"

	"github.com/counterfoil/counterfoil/internal/opaque"
)

//go:embed scripts
var scriptFiles embed.FS

// Each script is atomic and stays within a shard, whose keys share a slot: see
// [Store.keys].
var (
	snapshotScript = script("snapshot")
	learnScript    = script("learn")
	insertScript   = script("insert")
	deriveScript   = script("derive")
	removeScript   = script("remove")
	swapScript     = script("swap")
	finishScript   = script("finish")
	subjectScript  = script("subject")
	settleScript   = script("settle")
	touchScript    = script("touch")
	purgeScript    = script("purge")
	pageScript     = script("page")
	verifyScript   = script("verify")
	markScript     = script("mark")
	importScript   = script("import")
)

func script(name string) *rueidis.Lua {
	read := func(name string) string {
		text, err := scriptFiles.ReadFile("scripts/" + name + ".lua")
		if err != nil {
			panic(err) // embedded
		}
		return string(text)
	}
	return rueidis.NewLuaScript(read("prelude") + read(name))
}

// shards is how many there are: a byte's worth.
const shards = 256

// shard is the two characters with which a subject's sessions begin. All its
// keys share a slot of a cluster.
type shard string

func shardOf(subject string) shard { return shard(opaque.Shard(subject)) }

// split takes a session's ID apart; ok is false for what is none.
func split(id string) (at shard, rest string, ok bool) {
	if !opaque.IsSelector(id) {
		return "", "", false
	}
	return shard(id[:2]), id[2:], true
}

func allShards() []shard {
	list := make([]shard, shards)
	for i := range list {
		list[i] = shard(opaque.ShardName(byte(i)))
	}
	return list
}

func (s *Store) base(at shard) string { return s.prefix + "{" + string(at) + "}:" }

// keys are those that a script declares. While a cluster moves the slot to
// another server, key by key, both servers answer a script only if all declared
// keys are there, else TRYAGAIN. One that never exists keeps scripts from seeing
// half of a shard, and from writing the other half anew. A session is read all
// the same, since either server knows whether it is the one that has a single
// key: what more that script needs and is not there fails, or is brought by
// another script.
func (s *Store) keys(lua *rueidis.Lua, at shard, args []string) []string {
	base := s.base(at)
	if lua == snapshotScript {
		return []string{base + "s:" + args[0]}
	}
	return []string{base, base + "log"}
}

var errMoving = errors.New("a part of the sessions is being moved to another server of the cluster")

// callTimeout bounds a call to Redis for which nobody set a shorter time.
const callTimeout = 5 * time.Second

// read runs a script that changes nothing which has to last.
func (s *Store) read(ctx context.Context, lua *rueidis.Lua, at shard, args ...string) ([]rueidis.RedisMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return s.list(lua.Exec(ctx, s.client, s.keys(lua, at, args), args))
}

// list reads an answer; a single value is a list of one.
func (s *Store) list(result rueidis.RedisResult) ([]rueidis.RedisMessage, error) {
	message, err := result.ToMessage()
	if failure, ok := rueidis.IsRedisErr(err); ok {
		// A dedicated connection is not led on to the other server.
		if _, ask := failure.IsAsk(); ask || failure.IsTryAgain() {
			err = fmt.Errorf("%w: %w", errMoving, err)
		}
	}
	if err != nil {
		return nil, unavailable(err)
	}
	if message.IsArray() {
		return message.ToArray()
	}
	return []rueidis.RedisMessage{message}, nil
}

// write runs a script and waits for replicas as [Wait] asks. Where the shard is
// being moved it tries for as long as that takes with few sessions.
func (s *Store) write(ctx context.Context, lua *rueidis.Lua, at shard, args ...string) (list []rueidis.RedisMessage, err error) {
	const longest = 80 * time.Millisecond
	for pause := 10 * time.Millisecond; ; pause *= 2 {
		list, err = s.writeOnce(ctx, lua, at, args)
		if !errors.Is(err, errMoving) || pause > longest {
			return list, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, err
		}
	}
}

func (s *Store) writeOnce(ctx context.Context, lua *rueidis.Lua, at shard, args []string) (list []rueidis.RedisMessage, err error) {
	if s.replicas == 0 {
		return s.read(ctx, lua, at, args...)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout+s.replicasWithin)
	defer cancel()
	// WAIT counts the writes of its own connection.
	err = s.client.Dedicated(func(c rueidis.DedicatedClient) error {
		if list, err = s.list(lua.Exec(ctx, dedicated{s.client, c}, s.keys(lua, at, args), args)); err != nil {
			return err
		}
		reached, err := c.Do(ctx, c.B().Wait().Numreplicas(int64(s.replicas)).Timeout(s.replicasWithin.Milliseconds()).Build()).AsInt64()
		if err != nil {
			return unavailable(err)
		}
		if reached < int64(s.replicas) {
			return unavailable(fmt.Errorf("%d of %d replicas have it after %s", reached, s.replicas, s.replicasWithin))
		}
		return nil
	})
	return list, err
}

// dedicated lets a script run on one connection.
type dedicated struct {
	rueidis.Client
	on rueidis.DedicatedClient
}

func (d dedicated) Do(ctx context.Context, cmd rueidis.Completed) rueidis.RedisResult {
	return d.on.Do(ctx, cmd)
}

// text reads an answer that is a status.
func text(list []rueidis.RedisMessage) string {
	if len(list) == 0 {
		return ""
	}
	word, err := list[0].ToString()
	if err != nil {
		return ""
	}
	return word
}

func decimal(n int64) string { return strconv.FormatInt(n, 10) }
