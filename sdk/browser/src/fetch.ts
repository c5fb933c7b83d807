import { problemOf, type Grant } from "./answer.js";
import type { Platform } from "./platform.js";
import type { Challenge, Options } from "./types.js";

/** A token, another one than that which was refused; undefined where nobody is signed in. */
type Tokens = (refused?: string) => Promise<Grant | undefined>;

/**
 * A fetch that brings the access token to the configured origins and to no others. A request that is refused for its token
 * is repeated with another one: after a refresh that may have been under way, and once more after one that was sent since.
 */
export function createFetch(p: Platform, { origins: given, onStepUp }: Options, tokens: Tokens, count: () => number): typeof fetch {
  const origins = (given ?? [p.base]).map((origin) => new URL(origin, p.base).origin);
  let stepUps = 0;
  let asking: Promise<unknown> | undefined;

  /** Asks the user once for all requests that wait. */
  function ask(challenge: Challenge): Promise<unknown> {
    return (asking ??= (async () => onStepUp!(challenge))()
      .then(
        (answer) => answer !== false && ++stepUps,
        () => false,
      )
      .finally(() => (asking = undefined)));
  }

  return async (input, init) => {
    const request = typeof input === "object" && "headers" in input ? input : undefined;
    const url = new URL(request ? request.url : String(input), p.baseURI());
    const headers = new Headers(init?.headers ?? request?.headers);
    if (!origins.includes(url.origin) || headers.has("Authorization")) return p.fetch(input, init);
    const once = typeof ReadableStream === "function" && init?.body instanceof ReadableStream;

    let grant = await tokens();
    let asked = stepUps;
    const send = () => {
      if (grant) headers.set("Authorization", `Bearer ${grant.token}`);
      asked = stepUps;
      return p.fetch(request && !once ? request.clone() : request ?? url.href, { ...init, headers });
    };
    let response = await send();
    if (once || !grant) return response;
    const { subject } = grant.session;

    for (let refreshes = 0, stepped = false; response.status === 401; ) {
      const problem = await problemOf(response);
      // RFC 6750 and 9470: verifiers of others say it in the header only.
      const header = response.headers.get("WWW-Authenticate") ?? "";
      const member = (name: string) => problem[name] ?? new RegExp(`\\b${name}="?([^",]+)`).exec(header)?.[1];
      const code = problem["code"] ?? String(member("error")).replace("invalid_token", "token_invalid");
      const seen = count();
      const weak = code === "insufficient_user_authentication";
      if (weak) {
        if (stepped || !onStepUp) break;
        stepped = true;
        // It may have been sent before the user answered.
        const challenge = { maxAge: Number(member("max_age") ?? NaN), acrValues: String(member("acr_values") ?? "").split(" ").filter(Boolean) };
        if (asked === stepUps && !(await ask(challenge))) break;
      } else if (!/^(token|session)_/.test(String(code)) || refreshes > 1) break;
      try {
        grant = await tokens(grant.token);
      } catch {
        break; // the refusal says more than that it could not be mended
      }
      // Nobody is signed in any more, or somebody else, who has not asked for this.
      if (grant?.session.subject !== subject) break;
      // A refresh that was sent before the refusal may have read what was true before it: one more.
      if (!weak) refreshes += count() > seen ? 2 : 1;
      await response.body?.cancel();
      response = await send();
    }
    return response;
  };
}
