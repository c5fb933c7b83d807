import { asInteger, asString, decodeUTF8, JsonNumber, parseObject } from "./json.js";
import { parseEntries, type Entry } from "./revocations.js";

// The stream of revocations: server-sent events with compact JSON. A long list of entries is cut into several frames,
// of which the last alone carries the id: entries are applied as they come, and a reader has come as far as the last id
// it saw.

const maxFrame = 1 << 20; // bytes of one event

/** How fresh the stream is: what the store had ageMs before `now` has been told in the frames before this one. */
export interface Beat {
  ageMs: number;
  now: number; // seconds by the node's monotonic clock
  keys: number; // version of the key set that the node publishes
  node: string; // the process whose clock it is
}

/**
 * One event of the feed. skipped counts what this version does not know: entries in this frame, and events between the
 * frame before and this one.
 */
export type Frame =
  | { kind: "snapshot" | "live"; position: string | undefined; entries: Entry[]; skipped: number }
  | { kind: "beat"; beat: Beat; skipped: number };

/**
 * Decodes a feed from chunks of any size. It takes what later versions may add: events, members, kinds of entries.
 * Anything that is wrong throws.
 */
export class FrameReader {
  #rest: Uint8Array[] = []; // of a line whose end has not come
  #size = 0; // of the event so far, with the rest
  #begun = false;
  #skipped = 0;
  #event = "";
  #id: string | undefined;
  #data: Uint8Array[] = [];

  /** Returns the frames that end in this chunk. */
  *push(chunk: Uint8Array): Generator<Frame> {
    for (let at = 0; at < chunk.length; ) {
      const end = chunk.indexOf(10, at);
      const part = chunk.subarray(at, end < 0 ? chunk.length : end + 1);
      at += part.length;
      this.#size += part.length;
      if (this.#size > maxFrame) throw new Error("feed: an event is too long");
      if (end < 0) {
        this.#rest.push(Uint8Array.from(part)); // the chunk is its owner's
        return;
      }
      const line = this.#rest.length === 0 ? part : Buffer.concat([...this.#rest, part]);
      this.#rest = [];
      const frame = this.#line(line.subarray(0, line.at(-2) === 13 ? -2 : -1));
      if (frame !== undefined) yield frame;
    }
  }

  #line(line: Uint8Array): Frame | undefined {
    if (!this.#begun) {
      this.#begun = true;
      if (line[0] === 0xef && line[1] === 0xbb && line[2] === 0xbf) line = line.subarray(3); // a byte order mark
    }
    if (line.length > 0) {
      this.#field(line);
      return undefined;
    }
    const [event, id, data] = [this.#event, this.#id, this.#data];
    this.#size = 0;
    this.#event = "";
    this.#id = undefined;
    this.#data = [];
    if (data.length === 0) return undefined;
    if (event !== "snapshot" && event !== "live" && event !== "beat") {
      this.#skipped++;
      return undefined;
    }
    const skipped = this.#skipped;
    this.#skipped = 0;
    try {
      const text = data.map(decodeUTF8).join("\n");
      if (event === "beat") return { kind: event, beat: parseBeat(text), skipped };
      const list = parseEntries(text);
      if (id !== undefined && !isPosition(id)) throw new Error("the id is not of the form 7.10422");
      return { kind: event, position: id, entries: list.entries, skipped: skipped + list.skipped };
    } catch (error) {
      throw new Error(`feed: a ${event} frame: ${error instanceof Error ? error.message : "wrong"}`);
    }
  }

  #field(line: Uint8Array): void {
    const colon = line.indexOf(58);
    const name = latin1(colon < 0 ? line : line.subarray(0, colon));
    const value = colon < 0 ? line.subarray(line.length) : line.subarray(colon + (line[colon + 1] === 32 ? 2 : 1));
    // What is text for a person or of a later version may hold anything.
    if (name === "event") this.#event = latin1(value);
    else if (name === "id") this.#id = latin1(value);
    else if (name === "data") this.#data.push(Uint8Array.from(value));
  }
}

function latin1(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

/** A position is handed back as it came; only servers compare. It has one form: timeline.sequence. */
function isPosition(s: string): boolean {
  const [, timeline, seq] = /^([1-9][0-9]{0,18})\.(0|[1-9][0-9]{0,18})$/.exec(s) ?? [];
  return timeline !== undefined && seq !== undefined && BigInt(timeline) < 1n << 63n && BigInt(seq) < 1n << 63n;
}

function parseBeat(text: string): Beat {
  const beat = parseObject(text);
  const ageMs = asInteger(beat.get("age_ms"));
  if (ageMs < 0) throw new Error("age_ms: is negative");
  return { ageMs, now: seconds(beat.get("now")), keys: asInteger(beat.get("keys")), node: beat.has("node") ? asString(beat.get("node")) : "" };
}

/** Reads the answer of /v1/revocations/clock. */
export function parseClock(text: string): { node: string; now: number } {
  const clock = parseObject(text);
  return { node: asString(clock.get("node")), now: seconds(clock.get("now")) };
}

function seconds(value: unknown): number {
  const s = value instanceof JsonNumber ? Number(value.text) : NaN;
  if (!(s >= 0 && s <= 2147483647 * 1000)) throw new Error("now: is no time");
  return s;
}
