import { problemOf } from "./answer.js";
import type { Machine } from "./machine.js";
import type { Platform } from "./platform.js";
import type { Challenge, Options } from "./types.js";

/** What `fetch` does with the machine. */
export interface Tokens {
  readonly machine: Machine;
  /** A token; undefined where nobody is signed in. */
  token(refused?: string): Promise<string | undefined>;
}

/**
 * A fetch that brings the access token to the configured origins and to no others. A request that is refused for its token
 * is repeated with another one: after a refresh that may have been under way, and once more after one that was sent since.
 */
export function createFetch(p: Platform, tokens: Tokens, options: Options): typeof fetch {
  const origins = (options.origins ?? [p.base]).map((origin) => new URL(origin, p.base).origin);
  let stepUps = 0;
  let asking: Promise<unknown> | undefined;

  /** Asks the user once for all requests that wait. */
  function ask(challenge: Challenge): Promise<unknown> {
    return (asking ??= (async () => options.onStepUp!(challenge))()
      .then(
        (answer) => answer !== false && ++stepUps,
        () => false,
      )
      .finally(() => (asking = undefined)));
  }

  return async (input, init) => {
    const request = typeof input === "object" && "headers" in input ? input : undefined;
    const url = new URL(request ? request.url : String(input), p.base);
    const headers = new Headers(init?.headers ?? request?.headers);
    if (!origins.includes(url.origin) || headers.has("Authorization")) return p.fetch(input, init);
    const once = typeof ReadableStream === "function" && init?.body instanceof ReadableStream;

    let token = await tokens.token();
    let asked = stepUps;
    const send = () => {
      if (token) headers.set("Authorization", `Bearer ${token}`);
      asked = stepUps;
      return p.fetch(request && !once ? request.clone() : request ?? url.href, { ...init, headers });
    };
    let response = await send();
    if (once || !token) return response;

    for (let refreshes = 0, stepped = false; response.status === 401; ) {
      const { code, max_age: maxAge, acr_values: acr } = await problemOf(response);
      const seen = tokens.machine.count;
      const weak = code === "insufficient_user_authentication";
      if (weak) {
        if (stepped || !options.onStepUp) break;
        stepped = true;
        // It may have been sent before the user answered.
        const challenge = { maxAge: typeof maxAge === "number" && maxAge >= 0 ? maxAge : undefined, acrValues: typeof acr === "string" ? acr.split(" ") : [] };
        if (asked === stepUps && !(await ask(challenge))) break;
      } else if (!/^(token|session)_/.test(String(code)) || refreshes > 1) break;
      try {
        token = await tokens.token(token);
      } catch {
        break; // the refusal says more than that it could not be mended
      }
      if (!token) break;
      // A refresh that was sent before the refusal may have read what was true before it: one more.
      if (!weak) refreshes += tokens.machine.count > seen ? 2 : 1;
      await response.body?.cancel();
      response = await send();
    }
    return response;
  };
}
