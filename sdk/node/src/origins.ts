import { ConfigError } from "./errors.js";

const safeMethods = new Set(["GET", "HEAD", "OPTIONS"]);

/**
 * Tells requests from other origins, by what browsers say of themselves: Sec-Fetch-Site, or Origin where that is
 * missing. Neither means that it is not a browser.
 */
export class Origins {
  readonly #trusted: Set<string>;

  constructor(trusted: readonly string[]) {
    for (const origin of trusted) {
      if (!/^[A-Za-z][A-Za-z0-9+.-]*:\/\/[^/?#@\s]+$/.test(origin)) {
        throw new ConfigError("trustedOrigins", `${JSON.stringify(origin)} is not of the form https://app.example`);
      }
    }
    this.#trusted = new Set(trusted);
  }

  /** Whether a request that is sent along with a cookie may be. */
  allows(method: string, header: (name: string) => string): boolean {
    if (safeMethods.has(method)) return true;
    const origin = header("origin");
    switch (header("sec-fetch-site")) {
      case "same-origin":
      case "none":
        return true;
      case "":
        if (origin === "" || hostOf(origin) === header("host")) return true;
    }
    return this.#trusted.has(origin);
  }
}

function hostOf(origin: string): string | undefined {
  return /^[A-Za-z][A-Za-z0-9+.-]*:\/\/([^/?#@]+)/.exec(origin)?.[1];
}
