package main

import (
	"fmt"
	"math"
)

// lifetimes of access tokens that stand side by side, in seconds.
var lifetimes = []float64{60, 300}

func heads(first string) []string { return []string{first, "tokens of 60 s", "tokens of 300 s"} }

// both fills a row with a figure of each lifetime.
func (t *table) both(name string, figure func(lifetime float64) string) {
	cells := []string{name}
	for _, l := range lifetimes {
		cells = append(cells, figure(l))
	}
	t.row(cells...)
}

func (t *table) same(name, figure string) { t.row(name, figure, "the same") }

func (s size) refreshes(lifetime float64) float64 { return s.sessions / lifetime }
func (s size) ends() float64                      { return s.users * s.signOuts / 86400 }
func (s size) inForce(lifetime float64) float64   { return s.ends() * (lifetime + margin) }

func (s size) load() table {
	t := table{title: "What there is to do", head: heads("")}
	t.both("refreshes a second", func(l float64) string { return number(s.refreshes(l)) })
	t.same("sessions ended a second: average, peak", number(s.ends())+", "+number(s.ends()*s.peak))
	t.same("sessions started a second: average, peak", number(s.ends())+", "+number(s.ends()*s.peak))
	t.both("revocations in force: average, peak", func(l float64) string { return number(s.inForce(l)) + ", " + number(s.inForce(l)*s.peak) })
	t.both("a revoked token works at most, where a verifier is cut off and the route asks for nothing", func(l float64) string { return digits(l+5) + " s" })
	return t
}

func (s size) parts() table {
	t := table{title: "What it takes", head: heads("")}
	machines := func(cores float64) string {
		return whole(cores/full) + " processors, " + whole(cores/full/s.cores) + " machines"
	}
	t.both("nodes, for refreshes", func(l float64) string { return machines(s.refreshes(l) * refreshCPU) })
	t.both("PostgreSQL for the reads of refreshes, one statement each", func(l float64) string { return machines(s.refreshes(l) * storeCPU) })
	t.both("the same where reads share statements", func(l float64) string { return machines(s.refreshes(l) * sharedCPU) })
	t.both("or Redis shards for them", func(l float64) string { return whole(s.refreshes(l) / redisReads) })
	t.same("PostgreSQL for sessions that start and end, at the peak", machines(s.ends()*s.peak*(revokeCPU+signInCPU)))
	t.same("commits a second at the peak, of what one primary was seen to do", fmt.Sprintf("%s, %.1f times", number(2*s.ends()*s.peak), 2*s.ends()*s.peak/postgresWrites))
	t.same("active sessions in PostgreSQL, in Redis", inBytes(s.sessions*postgresBytes)+", "+inBytes(s.sessions*redisBytes))
	return t
}

// writes is how often a second a server with so many streams on a processor
// writes to each.
func writes(streams float64) float64 { return 1 / flush(streams) }

func flush(streams float64) float64 { return math.Max(flushLeast, streams*flushEach) }

// stream is what the feed to one reader is, in bytes a second.
func (s size) stream(ends float64) float64 {
	events := math.Min(ends, writes(s.streams))
	return ends*entryBytes + events*frameBytes + 10*beatBytes
}

func (s size) feed() table {
	t := table{title: "The feed", head: []string{"", "average", "peak"}}
	both := func(name string, figure func(ends float64) string) {
		t.row(name, figure(s.ends()), figure(s.ends()*s.peak))
	}
	hosts := s.verifiers / s.perHost
	both("to one reader", func(e float64) string { return bits(s.stream(e)) })
	both("to every verifier from the authority", func(e float64) string { return bits(s.stream(e) * s.verifiers) })
	both("to every host, with one relay on it", func(e float64) string { return bits(s.stream(e) * hosts) })
	both("out of one relay of a region", func(e float64) string { return bits(s.stream(e) * s.streams) })
	both("between regions, two streams into each", func(e float64) string { return bits(s.stream(e) * 2 * s.regions) })
	both("a reader may be away before it needs a snapshot: from a node, from a relay", func(e float64) string {
		return digits(frameMemory/s.stream(e)) + " s, " + digits(relayMemory/s.stream(e)) + " s"
	})
	for _, l := range lifetimes {
		both(fmt.Sprintf("a snapshot, tokens of %.0f s", l), func(e float64) string { return inBytes(e * (l + margin) * entryBytes) })
	}
	return t
}

func (s size) tree() table {
	t := table{title: "Relays", head: []string{"level", "how many", "each serves", "processors each at the peak", "memory each: streams, and revocations at the peak (60 s)", "adds, at most"}}
	hosts := s.verifiers / s.perHost
	perRegion := math.Ceil(hosts/s.regions/s.streams) + 1 // one to spare
	regional := perRegion * s.regions
	row := func(level string, n, streams float64) {
		busy := streams*(10*streamCPU+math.Min(s.ends()*s.peak, writes(streams))*writeCPU) + s.ends()*s.peak*applyCPU
		t.row(level, whole(n), whole(streams)+" streams", fmt.Sprintf("%.2g", busy),
			inBytes(streams*streamBytes)+", "+inBytes(s.inForce(lifetimes[0])*s.peak*rowBytes), ms(flush(streams)))
	}
	row("the authority's nodes, together", 2, regional/2)
	row("relays of the regions, one a region to spare", regional, hosts/regional)
	row("a relay on each host", hosts, s.perHost)
	return t
}

func (s size) verifier() table {
	t := table{title: "A verifier, which knows all that is in force", head: heads("")}
	t.both("memory of revocations: average, peak", func(l float64) string {
		return inBytes(s.inForce(l)*rowBytes) + ", " + inBytes(s.inForce(l)*s.peak*rowBytes)
	})
	t.same("processors to apply the feed: average, peak", fmt.Sprintf("%.2g, %.2g", s.ends()*applyCPU, s.ends()*s.peak*applyCPU))
	t.same("the same at all verifiers together, at the peak", number(s.ends()*s.peak*applyCPU*s.verifiers))
	t.both("revocations fit the cache file (64 MiB): average, peak", func(l float64) string {
		fits := func(n float64) string {
			if n*entryBytes < cacheFile {
				return "yes"
			}
			return "no: keys only"
		}
		return fits(s.inForce(l)) + ", " + fits(s.inForce(l)*s.peak)
	})
	return t
}

// limit is how many active sessions a part of a design carries.
type limit struct {
	name string
	most float64
}

// limits says of each design how far each of its parts goes, and which is full
// first. The relation of users to sessions and verifiers stays as it is.
func (s size) limits() table {
	t := table{title: "Where each design is full first, in active sessions", head: []string{"design", "tokens of 60 s", "full first", "tokens of 300 s", "full first"}}
	endsEach := s.ends() * s.peak / s.sessions // of an active session, at the peak
	writesEach := 2 * endsEach                 // a start and an end
	verifiersEach := s.verifiers / s.sessions
	apply := limit{"a verifier applies the feed with half a processor", 0.5 / applyCPU / endsEach}
	designs := []struct {
		name  string
		parts func(l float64) []limit
	}{
		{"one SQLite node", func(l float64) []limit {
			return []limit{{"its processors, refreshes", s.cores * full / sqliteCPU * l}, {"commits with a sync of 1 ms", sqliteWrites / writesEach},
				{"streams of the feed, 1,000 a processor", 1000 * s.cores * full / verifiersEach}, apply}
		}},
		{"PostgreSQL alone, any number of nodes", func(l float64) []limit {
			return []limit{{"the primary's processors, reads of refreshes", s.cores * full / sharedCPU * l}, {"commits of one primary with a sync of 1 ms", postgresWrites / writesEach}, apply}
		}},
		{"PostgreSQL and Redis", func(l float64) []limit {
			return []limit{{"Redis, 100 shards", 100 * redisReads * l}, {"commits of one primary with a sync of 1 ms", postgresWrites / writesEach}, apply}
		}},
		{"the same, 16 primaries", func(l float64) []limit {
			return []limit{{"Redis, 100 shards", 100 * redisReads * l}, {"commits of the primaries", 16 * postgresWrites / writesEach}, apply}
		}},
	}
	for _, d := range designs {
		cells := []string{d.name}
		for _, l := range lifetimes {
			least := limit{most: math.Inf(1)}
			for _, part := range d.parts(l) {
				if part.most < least.most {
					least = part
				}
			}
			cells = append(cells, number(least.most), least.name)
		}
		t.row(cells...)
	}
	return t
}

// light is how long glass takes between regions, and a revocation with it.
func (s size) light() table {
	t := table{title: "Between regions", head: []string{"", "km, shortest line", "one way in glass", "revoked there, refused here, at most (without queues)", "a refresh over there and back"}}
	levels := flush(s.streams) + flush(s.perHost) + flushLeast
	for _, way := range []struct {
		name string
		km   float64
	}{{"within a region", 50}, {"Frankfurt – London", 640}, {"Virginia – Oregon", 3700}, {"Frankfurt – Virginia", 6550}, {"Virginia – São Paulo", 7650}, {"Frankfurt – Singapore", 10260}, {"Virginia – Sydney", 15700}} {
		one := way.km * detour / fibre
		t.row(way.name, digits(way.km), ms(one), ms(one+levels+3*hopPerLevel), ms(2*one))
	}
	return t
}
