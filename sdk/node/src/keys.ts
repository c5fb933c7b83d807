import { later, spread, type Clock, type Logger } from "./clock.js";
import { ConfigError, CounterfoilError, textOf } from "./errors.js";
import { type Client, maxAge } from "./http.js";
import { asInteger, asString, parseObject } from "./json.js";
import { parseKeySet, type KeySet, type PublicKey } from "./jwks.js";

const kidWait = 2000; // how long a token with an unknown kid waits for keys
const kidCooldown = 30_000; // between fetches for unknown kids; up to a third is added
const firstAgain = 50; // after a fetch that did not bring the keys of which the feed spoke; doubles
const longestAgain = 5000;
const firstRetry = 1000; // after a failed fetch; doubles
const longestRetry = 60_000;
const longestLifetime = 3600; // seconds; bounds exp - iat where the authority has not said less
const longestDiscovered = 24 * 3600; // the most that it may say

/** A key and what holds for its tokens. */
export interface KnownKey {
  key: PublicKey;
  longest: number; // the longest lifetime of tokens, in seconds
}

/** Finds keys by kid. */
export interface KeySource {
  /** Does no I/O. undefined where find would wait or fail. */
  known(kid: string): KnownKey | undefined;
  /** Throws unavailable while there are no keys, otherwise token_invalid. */
  find(kid: string): Promise<KnownKey>;
}

interface Installed {
  version: number;
  keys: Map<string, PublicKey>;
  longest: number;
  fetched: number; // monotonic
}

/**
 * Fetches the key set, keeps it fresh in the background, and holds on to it while the authority cannot be reached. A
 * known kid costs no I/O. A set replaces the one before as a whole, and never goes back to an older version.
 */
export class RemoteKeys implements KeySource {
  #set: Installed | undefined;
  #timer: NodeJS.Timeout | undefined;
  #retry = firstRetry;
  #flight: Promise<void> | undefined; // the fetch under way for an unknown kid, or for the feed
  #nextForKid = -Infinity; // no fetch for an unknown kid before
  #wanted = 0; // the version that the feed has spoken of
  #nextForFeed = -Infinity;
  #pause = 0; // the last time between two fetches for the feed
  #closed = false;

  constructor(
    private readonly issuer: string,
    private readonly maxKeyAge: number, // ms
    private readonly client: Client,
    private readonly clock: Clock,
    private readonly log: Logger,
    /** Hears of each set that was installed, and that the authority is another issuer's. */
    private readonly heard: { installed(): void; foreign(error: ConfigError): void },
  ) {}

  /** Begins to fetch. */
  start(): void {
    void this.#run();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  /** 0 before the first set. */
  get version(): number {
    return this.#set?.version ?? 0;
  }

  /** The longest lifetime of tokens, in seconds. */
  get longest(): number {
    return this.#set?.longest ?? longestLifetime;
  }

  get ready(): boolean {
    return this.#set !== undefined && !this.#tooOld(this.#set);
  }

  #tooOld(set: Installed): boolean {
    return this.clock.monotonic() - set.fetched > this.maxKeyAge;
  }

  known(kid: string): KnownKey | undefined {
    const set = this.#set;
    if (set === undefined || this.#tooOld(set)) return undefined;
    const key = set.keys.get(kid);
    return key && { key, longest: set.longest };
  }

  async find(kid: string): Promise<KnownKey> {
    const k = this.known(kid);
    if (k !== undefined) return k;
    if (this.#set === undefined) throw new CounterfoilError("unavailable", "no keys have been fetched yet");
    if (this.#tooOld(this.#set)) {
      throw new CounterfoilError("unavailable", "the keys are older than maxKeyAge and the authority cannot be reached");
    }
    await this.#refetch();
    const now = this.known(kid);
    if (now !== undefined) return now;
    if (this.outdated) throw new CounterfoilError("unavailable", "the kid is unknown and the authority has newer keys, which have not come");
    throw new CounterfoilError("token_invalid", "unknown kid");
  }

  /** Whether the feed has spoken of keys that are not here. */
  get outdated(): boolean {
    return this.#set === undefined || this.#set.version < this.#wanted;
  }

  /** Says that the authority has keys of this version. It is called with every beat, so what fails is tried again. */
  announce(version: number): void {
    this.#wanted = Math.max(this.#wanted, version);
    if (this.outdated && this.clock.monotonic() >= this.#nextForFeed) this.#fly(false);
  }

  /**
   * Asks for the keys anew since a kid is unknown. All who come meanwhile share one fetch, and after one, good or bad,
   * there is none for a while: who makes up kids causes no load. Where the feed has spoken of newer keys there will be
   * one soon.
   */
  async #refetch(): Promise<void> {
    if (this.#flight === undefined && this.clock.monotonic() < (this.outdated ? this.#nextForFeed : this.#nextForKid)) return;
    this.#fly(true);
    let timer: NodeJS.Timeout | undefined;
    const slow = new Promise<never>((_, reject) => {
      timer = later(kidWait, () => reject(new CounterfoilError("unavailable", "the kid is unknown and the keys are still being fetched")));
    });
    try {
      await Promise.race([this.#flight, slow]);
    } finally {
      clearTimeout(timer);
    }
  }

  #fly(forKid: boolean): void {
    if (this.#closed) return;
    this.#flight ??= this.#load()
      .then(
        () => {},
        (error: unknown) => this.log.warn(`new keys could not be fetched: ${textOf(error)}`),
      )
      .finally(() => {
        const now = this.clock.monotonic();
        this.#flight = undefined;
        if (forKid) this.#nextForKid = now + kidCooldown + (Math.random() * kidCooldown) / 3;
        this.#pause = this.outdated ? Math.min(Math.max(2 * this.#pause, firstAgain), longestAgain) : 0;
        this.#nextForFeed = now + spread(this.#pause, 0.5);
      });
  }

  /** Keeps the keys fresh until close. */
  async #run(): Promise<void> {
    let next: number;
    try {
      const fresh = await this.#load();
      this.#retry = firstRetry;
      next = spread(fresh, 0.2);
    } catch (error) {
      if (this.#closed) return;
      this.#complain(error);
      next = spread(this.#retry, 0.2);
      this.#retry = Math.min(2 * this.#retry, longestRetry);
    }
    if (!this.#closed) this.#timer = later(next, () => void this.#run());
  }

  #complain(error: unknown): void {
    if (error instanceof ConfigError) this.heard.foreign(error);
    if (this.#set === undefined) this.log.warn(`no keys yet, tokens are answered with 503: ${textOf(error)}`);
    else if (this.#tooOld(this.#set)) this.log.error(`the keys are too old to be trusted, tokens are answered with 503: ${textOf(error)}`);
    else this.log.warn(`keys could not be refreshed, the ones at hand stay in use: ${textOf(error)}`);
  }

  /**
   * Fetches the discovery document and the keys, and returns how long they stay fresh. Keys are never fetched without
   * the document: the address may have become another issuer's.
   */
  async #load(): Promise<number> {
    const at = this.clock.monotonic(); // what comes was true no earlier than this
    const longest = await this.#discover();
    const doc = await this.client.json("/.well-known/jwks.json", ["application/jwk-set+json"]);
    this.#install(await parseKeySet(doc.text), longest, at);
    return maxAge(doc.headers);
  }

  /** Insists that the authority is the issuer's (RFC 8414 section 3.3). No address is taken from the document. */
  async #discover(): Promise<number> {
    const { text } = await this.client.json("/.well-known/oauth-authorization-server", []);
    const document = parseObject(text);
    const issuer = asString(document.get("issuer"));
    if (issuer !== this.issuer) {
      throw new ConfigError("issuer", `is ${JSON.stringify(this.issuer)}, but the authority at ${this.client.base} says it is ${JSON.stringify(issuer)}`);
    }
    if (!document.has("cf_max_token_lifetime")) return longestLifetime;
    const longest = asInteger(document.get("cf_max_token_lifetime"));
    if (longest < 1 || longest > longestDiscovered) throw new Error("cf_max_token_lifetime is not a lifetime in seconds");
    return longest;
  }

  #install(set: KeySet, longest: number, at: number): void {
    if (set.keys.length === 0) throw new Error("the key set has no key of use");
    if (this.#set !== undefined && set.version < this.#set.version) {
      throw new Error(`the key set has version ${set.version}, after ${this.#set.version}`);
    }
    this.#set = {
      version: set.version,
      keys: new Map(set.keys.map((key) => [key.kid, key])),
      longest,
      fetched: Math.max(at, this.#set?.fetched ?? -Infinity),
    };
    this.heard.installed();
  }
}
