// The JSON of tokens, key sets and the feed. It takes less than JSON.parse does: one document has one meaning here,
// whatever reader comes after. Duplicate names, lone surrogates, invalid UTF-8, a byte order mark, trailing data and
// documents that are too deep or too wide are refused (RFC 8259, RFC 7493, RFC 7519 section 4).

const maxDepth = 16; // nested arrays and objects, the outermost counted
const maxMembers = 64; // of one object
const maxNumber = 20; // characters

/** A number as it was written. */
export class JsonNumber {
  constructor(readonly text: string) {}
}

export type Json = null | boolean | string | JsonNumber | Json[] | JsonObject;
export type JsonObject = Map<string, Json>;

// fatal: invalid UTF-8 throws; ignoreBOM: a byte order mark stays, and is then no JSON.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Reads bytes as UTF-8, or throws. */
export function decodeUTF8(data: Uint8Array): string {
  return utf8.decode(data);
}

/** Reads one JSON document. It throws a SyntaxError for anything else. */
export function parseJson(text: string): Json {
  const s = new Scanner(text);
  s.space();
  const value = s.value(1);
  s.space();
  if (s.at !== text.length) s.fault("data after the end");
  return value;
}

/** Reads one JSON object. */
export function parseObject(text: string): JsonObject {
  const value = parseJson(text);
  if (!(value instanceof Map)) throw new SyntaxError("json: want an object");
  return value;
}

/** Reads one JSON array. */
export function parseArray(text: string): Json[] {
  const value = parseJson(text);
  if (!Array.isArray(value)) throw new SyntaxError("json: want an array");
  return value;
}

export function asString(value: Json | undefined): string {
  if (typeof value !== "string") throw new SyntaxError("want a string");
  return value;
}

export function asBoolean(value: Json | undefined): boolean {
  if (typeof value !== "boolean") throw new SyntaxError("want true or false");
  return value;
}

/**
 * Reads an integer of 64 bits: digits with at most a minus sign before them. A fraction, an exponent and -0 are refused.
 * Beyond 2^53 the result is the nearest number that there is.
 */
export function asInteger(value: Json | undefined): number {
  if (!(value instanceof JsonNumber) || !/^(?:0|-?[1-9][0-9]*)$/.test(value.text)) throw new SyntaxError("want an integer");
  const n = Number(value.text);
  if (!Number.isSafeInteger(n) && BigInt.asIntN(64, BigInt(value.text)) !== BigInt(value.text)) {
    throw new SyntaxError("integer out of range");
  }
  return n;
}

/**
 * Returns the name that readers which ignore case take name for: lower case ASCII, with U+017F read as s and U+212A as
 * k. A name that differs from a known one but folds to it would mean two things to two readers.
 */
export function foldsTo(name: string): string {
  return name.replace(/[A-Z\u017F\u212A]/g, (c) => (c === "\u017F" ? "s" : c === "\u212A" ? "k" : c.toLowerCase()));
}

const escapes: Record<string, string> = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };
const numberForm = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const plainText = /[^"\\\u0000-\u001f]*/y;

class Scanner {
  at = 0;
  constructor(readonly text: string) {}

  fault(problem: string): never {
    throw new SyntaxError(`json: ${problem} at ${this.at}`);
  }

  space(): void {
    for (; ; this.at++) {
      const c = this.text[this.at];
      if (c !== " " && c !== "\t" && c !== "\n" && c !== "\r") return;
    }
  }

  skip(c: string): boolean {
    if (this.text[this.at] !== c) return false;
    this.at++;
    return true;
  }

  /** Reads any value; depth counts for it if it is an array or an object. */
  value(depth: number): Json {
    switch (this.text[this.at]) {
      case undefined:
        return this.fault("unexpected end");
      case '"':
        return this.string();
      case "{":
        return this.object(depth);
      case "[":
        return this.array(depth);
      case "t":
        return this.literal("true", true);
      case "f":
        return this.literal("false", false);
      case "n":
        return this.literal("null", null);
      default:
        return this.number();
    }
  }

  literal<T>(word: string, value: T): T {
    if (!this.text.startsWith(word, this.at)) this.fault("want a value");
    this.at += word.length;
    return value;
  }

  object(depth: number): JsonObject {
    if (depth > maxDepth) this.fault("too deep");
    const members: JsonObject = new Map();
    this.at++;
    this.space();
    if (this.skip("}")) return members;
    for (;;) {
      if (members.size === maxMembers) this.fault("too many members");
      this.space();
      if (this.text[this.at] !== '"') this.fault("want a string");
      const name = this.string();
      if (members.has(name)) this.fault("duplicate name");
      this.space();
      if (!this.skip(":")) this.fault("want a colon");
      this.space();
      members.set(name, this.value(depth + 1));
      this.space();
      if (this.skip(",")) continue;
      if (this.skip("}")) return members;
      this.fault("want a comma or a closing brace");
    }
  }

  array(depth: number): Json[] {
    if (depth > maxDepth) this.fault("too deep");
    const elements: Json[] = [];
    this.at++;
    this.space();
    if (this.skip("]")) return elements;
    for (;;) {
      this.space();
      elements.push(this.value(depth + 1));
      this.space();
      if (this.skip(",")) continue;
      if (this.skip("]")) return elements;
      this.fault("want a comma or a closing bracket");
    }
  }

  /** Reads a number. One beyond the range of a double is refused, since readers differ on what it means. */
  number(): JsonNumber {
    numberForm.lastIndex = this.at;
    const text = numberForm.exec(this.text)?.[0];
    if (text === undefined) return this.fault("want a value");
    if (text.length > maxNumber) this.fault("number too long");
    if (!Number.isFinite(Number(text))) this.fault("number out of range");
    this.at += text.length;
    return new JsonNumber(text);
  }

  string(): string {
    let out = "";
    this.at++;
    for (;;) {
      plainText.lastIndex = this.at;
      const plain = plainText.exec(this.text)?.[0] ?? "";
      out += plain;
      this.at += plain.length;
      switch (this.text[this.at]) {
        case '"':
          this.at++;
          return out;
        case "\\":
          out += this.escape();
          break;
        case undefined:
          return this.fault("unexpected end");
        default:
          return this.fault("control character in a string");
      }
    }
  }

  /** Reads one escape, or the two that make up a surrogate pair. */
  escape(): string {
    const c = this.text[this.at + 1];
    if (c !== "u") {
      const plain = c === undefined ? undefined : escapes[c];
      if (plain === undefined) return this.fault("unknown escape");
      this.at += 2;
      return plain;
    }
    const high = this.hex(this.at);
    if (high === undefined) return this.fault("want four hexadecimal digits");
    if (high < 0xd800 || high > 0xdfff) {
      this.at += 6;
      return String.fromCharCode(high);
    }
    const low = this.hex(this.at + 6);
    if (high >= 0xdc00 || low === undefined || low < 0xdc00 || low > 0xdfff) return this.fault("lone surrogate");
    this.at += 12;
    return String.fromCharCode(high, low);
  }

  hex(at: number): number | undefined {
    const digits = /^\\u([0-9A-Fa-f]{4})$/.exec(this.text.slice(at, at + 6))?.[1];
    return digits === undefined ? undefined : parseInt(digits, 16);
  }
}
