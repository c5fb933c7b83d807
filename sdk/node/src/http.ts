import http from "node:http";
import https from "node:https";
import { decodeUTF8 } from "./json.js";

const maxBody = 256 << 10; // bytes of a JSON answer
const fetchTimeout = 5000; // ms, from dialling to the last byte

/** The authority answered, but not with what was asked for. */
export class StatusError extends Error {
  constructor(
    readonly status: number,
    readonly retryAfter: number | undefined,
  ) {
    super(`the answer has status ${status}`);
  }
}

export interface RequestOptions {
  method?: string;
  headers?: Record<string, string>;
  body?: string;
  signal?: AbortSignal;
  /** On a connection of its own, which may reach another node. */
  alone?: boolean;
}

/** Makes requests to one authority. Redirects are never followed, cookies never sent, proxies never looked for. */
export class Client {
  readonly #agent: http.Agent | undefined;
  readonly #own: http.Agent;

  constructor(
    readonly base: string,
    agent: http.Agent | undefined,
  ) {
    const secure = base.startsWith("https:");
    this.#own = secure ? new https.Agent({ keepAlive: true }) : new http.Agent({ keepAlive: true });
    this.#agent = agent;
  }

  /** Sends a request; resolves when the head of the answer is there. The body must be read or destroyed. */
  async send(path: string, options: RequestOptions = {}): Promise<http.IncomingMessage> {
    for (;;) {
      const answer = await this.#once(path, options);
      if (answer !== undefined) return answer;
    }
  }

  /** Resolves to undefined where a connection was taken up again just when the other side let go of it. */
  #once(path: string, options: RequestOptions): Promise<http.IncomingMessage | undefined> {
    const url = new URL(this.base + path);
    const { request } = url.protocol === "https:" ? https : http;
    return new Promise((resolve, reject) => {
      const req = request(url, {
        method: options.method ?? "GET",
        agent: this.#agent ?? (options.alone ? false : this.#own),
        headers: { "User-Agent": "counterfoil-node", ...options.headers },
        ...(options.signal ? { signal: options.signal } : {}),
      });
      req.on("response", resolve);
      req.on("error", (error: NodeJS.ErrnoException) => {
        // Nothing that is sent here does harm when it is sent twice.
        if (req.reusedSocket && (error.code === "ECONNRESET" || error.code === "EPIPE")) resolve(undefined);
        else reject(error);
      });
      req.end(options.body);
    });
  }

  /** Gets a JSON document of at most 256 KiB, within a time. It asks caches in between to look for a newer one. */
  async json(path: string, types: readonly string[], options: RequestOptions & { timeout?: number } = {}): Promise<{ text: string; headers: http.IncomingHttpHeaders }> {
    const timeout = AbortSignal.timeout(options.timeout ?? fetchTimeout);
    const { signal, stop } = either(timeout, options.signal);
    try {
      const res = await this.send(path, {
        ...options,
        headers: { Accept: [...types, "application/json"].join(", "), "Cache-Control": "no-cache", ...options.headers },
        signal,
      });
      return { text: await read(res, types), headers: res.headers };
    } catch (error) {
      if (timeout.aborted) throw new Error(`${path}: no answer in time`);
      if (error instanceof StatusError) throw error;
      throw new Error(`${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
    } finally {
      stop();
    }
  }

  close(): void {
    this.#own.destroy();
  }
}

/** A signal that ends with either of two (AbortSignal.any is younger than Node 18). */
function either(a: AbortSignal, b: AbortSignal | undefined): { signal: AbortSignal; stop(): void } {
  if (b === undefined) return { signal: a, stop: () => {} };
  const both = new AbortController();
  const abort = () => both.abort();
  for (const s of [a, b]) {
    if (s.aborted) abort();
    s.addEventListener("abort", abort);
  }
  return { signal: both.signal, stop: () => [a, b].forEach((s) => s.removeEventListener("abort", abort)) };
}

/** Reads the body of a 200 answer of the right type, bounded in size. */
async function read(res: http.IncomingMessage, types: readonly string[]): Promise<string> {
  try {
    if (res.statusCode !== 200) throw new StatusError(res.statusCode ?? 0, retryAfter(res.headers));
    const type = (res.headers["content-type"] ?? "").split(";")[0]!.trim().toLowerCase();
    if (type !== "application/json" && !types.includes(type)) throw new Error(`the answer is ${JSON.stringify(type)}, not JSON`);
    const chunks: Buffer[] = [];
    let size = 0;
    for await (const chunk of res as AsyncIterable<Buffer>) {
      size += chunk.length;
      if (size > maxBody) throw new Error(`the answer is longer than ${maxBody} bytes`);
      chunks.push(chunk);
    }
    return decodeUTF8(Buffer.concat(chunks));
  } catch (error) {
    res.destroy();
    throw error;
  }
}

export function retryAfter(headers: http.IncomingHttpHeaders): number | undefined {
  const value = headers["retry-after"] ?? "";
  return /^[0-9]{1,5}$/.test(value) ? Number(value) : undefined;
}

/** Reads max-age of Cache-Control in milliseconds, kept between half a minute and an hour; 5 minutes where it says none. */
export function maxAge(headers: http.IncomingHttpHeaders): number {
  const found = /(?:^|,)\s*max-age=([0-9]{1,9})\s*(?:,|$)/i.exec(headers["cache-control"] ?? "")?.[1];
  return found === undefined ? 300_000 : Math.min(Math.max(Number(found), 30), 3600) * 1000;
}
