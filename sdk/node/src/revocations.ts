import { asInteger, asString, parseArray, type Json } from "./json.js";
import type { Clock } from "./clock.js";
import { Heap, type Placed } from "./heap.js";

// What is known of revocations: the entries of the feed, and the table that answers which access tokens are refused
// though they have not expired.

/** What an entry names: session, subject, key, token (jti) or client. */
export type Kind = "s" | "u" | "k" | "j" | "c";

export interface Entry {
  kind: Kind;
  id: string;
  staleBelow: number; // of subjects; 0 for none
  revokedBelow: number; // of subjects and clients; 0 for none
  except: string; // of subjects: the session that was kept; empty for none
  until: number; // Unix seconds by the clock of whoever made the entry; 0 for never
}

const members: Record<Kind, number> = { s: 3, k: 3, j: 3, c: 4, u: 5 }; // that each kind has at least

/**
 * Reads a JSON array of entries. Entries of kinds that this version does not know are left out and counted; members
 * that a later version appends to a known kind are passed over. Anything else that is wrong throws.
 */
export function parseEntries(text: string): { entries: Entry[]; skipped: number } {
  const entries: Entry[] = [];
  let skipped = 0;
  for (const element of parseArray(text)) {
    const e = entry(element);
    if (e === undefined) skipped++;
    else entries.push(e);
  }
  return { entries, skipped };
}

function entry(parts: Json): Entry | undefined {
  if (!Array.isArray(parts) || parts.length === 0) throw new Error("an entry is no array, or empty");
  const kind = asString(parts[0]);
  if (!isKind(kind)) return undefined;
  if (parts.length < members[kind]) throw new Error(`an entry of kind ${kind} has ${parts.length} members`);
  let next = 1;
  const number = () => {
    const n = asInteger(parts[next++]);
    if (n < 0) throw new Error("a number is negative");
    return n;
  };
  const e: Entry = { kind, id: asString(parts[next++]), staleBelow: 0, revokedBelow: 0, except: "", until: 0 };
  if (e.id === "") throw new Error("an id is empty");
  if (kind === "u") e.staleBelow = number();
  if (kind === "u" || kind === "c") e.revokedBelow = number();
  e.until = number();
  if (kind === "u" && parts.length > next) e.except = asString(parts[next]);
  return e;
}

function isKind(s: string): s is Kind {
  return s.length === 1 && s in members;
}

/** What the table says of a token. */
export type Verdict = "none" | "stale" | "revoked";

interface Row extends Entry, Placed {
  floor: number; // for except: below it, that session's tokens are revoked too
  deadline: number; // monotonic milliseconds; Infinity for none
}

/**
 * The revocations in force. An entry leaves when its `until` has passed, measured by the time that has gone by since it
 * was applied, so that a wall clock set back or forth changes nothing. Whoever got an entry from another machine sets
 * `until` by the own clock first.
 */
export class RevocationTable {
  readonly #clock: Clock;
  readonly #rows: Record<Kind, Map<string, Row>> = { s: new Map(), u: new Map(), k: new Map(), j: new Map(), c: new Map() };
  readonly #leaving = new Heap<Row>((a, b) => a.deadline < b.deadline);
  readonly #listeners: ((entries: readonly Entry[]) => void)[] = [];
  #version = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Grows with each `apply`, when its entries are in force, and with `advance`. What was found under one version holds as
   * long as the version is the same, if the version was read before the table was asked.
   */
  get version(): number {
    return this.#version;
  }

  /** Makes a new version without entries, after changes elsewhere that what was found rests on: those of the keys. */
  advance(): void {
    this.#version++;
  }

  /** Has f called with what each `apply` is given, when it is in force. */
  listen(f: (entries: readonly Entry[]) => void): void {
    this.#listeners.push(f);
  }

  check(q: { sessionId: string; subject: string; tokenId: string; clientId: string; epoch: number }): Verdict {
    const rows = this.#rows;
    if (rows.s.has(q.sessionId) || rows.j.has(q.tokenId)) return "revoked";
    const client = rows.c.get(q.clientId);
    if (client !== undefined && q.epoch < client.revokedBelow) return "revoked";
    const subject = rows.u.get(q.subject);
    if (subject === undefined) return "none";
    if (q.epoch < subject.revokedBelow) {
      const kept = subject.except !== "" && q.sessionId === subject.except && q.epoch >= subject.floor;
      return kept ? "stale" : "revoked";
    }
    return q.epoch < subject.staleBelow ? "stale" : "none";
  }

  /** Whether the key was revoked. That is for good. */
  keyRevoked(kid: string): boolean {
    return this.#rows.k.has(kid);
  }

  /**
   * Puts entries in force. They may come more than once and in any order. Of a subject or client the greatest epochs
   * are kept. Entries whose time is over are passed over.
   */
  apply(entries: readonly Entry[]): void {
    if (entries.length === 0) return;
    this.#put(entries);
    this.#version++;
    for (const heard of this.#listeners) heard(entries);
  }

  #put(entries: readonly Entry[]): void {
    const now = this.#clock.now();
    const monotonic = this.#clock.monotonic();
    for (const e of entries) {
      let deadline = Infinity;
      if (e.kind !== "k" && e.until !== 0) {
        const left = e.until * 1000 - now;
        if (left <= 0) continue;
        deadline = monotonic + left;
      }
      const rows = this.#rows[e.kind];
      const old = rows.get(e.id);
      const fresh: Row = { ...e, floor: 0, deadline, place: -1 };
      const row = old === undefined ? fresh : merge(old, fresh);
      rows.set(e.id, row);
      if (old !== undefined) this.#leaving.remove(old);
      if (row.deadline !== Infinity) this.#leaving.push(row);
    }
    // More leave than come, so the table never outgrows what is in force by much, and no call pays for a great many.
    this.#sweep(monotonic, 2 * entries.length + 16);
  }

  /** Lets go of what is over, and returns the number of rows left. */
  get size(): number {
    this.#sweep(this.#clock.monotonic(), Infinity);
    return Object.values(this.#rows).reduce((sum, rows) => sum + rows.size, 0);
  }

  #sweep(now: number, limit: number): void {
    for (let first = this.#leaving.first; first !== undefined && first.deadline < now && limit > 0; first = this.#leaving.first, limit--) {
      this.#leaving.remove(first);
      this.#rows[first.kind].delete(first.id);
    }
  }
}

/**
 * Joins two rows of one id, the same in whatever order they come: the greatest epochs, the latest end, and the exception
 * of the greatest revocation. What any other revocation says of the excepted session stays in floor.
 */
function merge(one: Row, other: Row): Row {
  const [a, b] = one.revokedBelow < other.revokedBelow ? [other, one] : [one, other];
  const m: Row = { ...a, staleBelow: Math.max(a.staleBelow, b.staleBelow), place: -1 };
  if (a.except === b.except) {
    m.floor = Math.max(a.floor, b.floor);
  } else if (a.revokedBelow === b.revokedBelow) {
    // Two sessions, and each entry revokes the other's: neither is kept.
    m.except = "";
    m.floor = a.revokedBelow;
  } else {
    m.floor = Math.max(a.floor, b.revokedBelow);
  }
  if (b.deadline > a.deadline) {
    m.deadline = b.deadline;
    m.until = b.until;
  }
  return m;
}
