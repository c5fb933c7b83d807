/** Where the verifier reads the time. For tests; by default the system's clocks. */
export interface Clock {
  /** Milliseconds since 1970, as Date.now. */
  now(): number;
  /** Milliseconds that only ever grow, from any start, as performance.now. */
  monotonic(): number;
}

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
};

/** setTimeout that keeps no process alive. */
export function later(ms: number, call: () => void): NodeJS.Timeout {
  return setTimeout(call, ms).unref();
}

/** Spreads d downwards by a fraction, so that many verifiers do not ask at the same time. */
export function spread(d: number, fraction: number): number {
  return d * (1 - Math.random() * fraction);
}

/** Hears of trouble with the authority; with debug, of the reason of each refusal. No token is ever logged. */
export interface Logger {
  debug?(message: string): void;
  info?(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

export const consoleLogger: Logger = {
  warn: (message) => console.warn(`counterfoil: ${message}`),
  error: (message) => console.error(`counterfoil: ${message}`),
};
