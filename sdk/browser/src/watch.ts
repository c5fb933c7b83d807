import type { Platform } from "./platform.js";

const silence = 45_000; // three beats
const longest = 60_000;
const another = 30_000; // until this tab tries to become the one that watches

/**
 * Holds the stream of the session's events while it is switched on, and calls `hint` when something may have happened.
 * One tab holds it where there are locks; where there are none, each visible tab does. An event is a hint only: what has
 * happened is found out by a refresh.
 */
export function createWatch(p: Platform, url: string, hint: () => void): (on: boolean) => void {
  let stop: AbortController | undefined;

  const pause = (ms: number, signal: AbortSignal) =>
    new Promise<void>((go) => {
      const over = () => {
        cancel();
        signal.removeEventListener("abort", over);
        go();
      };
      const cancel = p.timer(ms, over);
      signal.addEventListener("abort", over);
    });

  /** Reads until the stream ends. Tells whether it had begun. */
  async function listen(signal: AbortSignal): Promise<boolean> {
    const silent = new AbortController();
    const abort = () => silent.abort();
    signal.addEventListener("abort", abort);
    let cancel = p.timer(silence, abort);
    let begun = false;
    try {
      const response = await p.fetch(url, { credentials: "include", redirect: "error", cache: "no-store", headers: { Accept: "text/event-stream" }, signal: silent.signal });
      if (response.status === 401) hint();
      if (!response.ok || !response.body || !/event-stream/.test(response.headers.get("Content-Type") ?? "")) {
        await response.body?.cancel();
        return false;
      }
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      begun = true;
      for (let text = ""; ; ) {
        const { done, value } = await reader.read();
        if (done) break;
        cancel();
        cancel = p.timer(silence, abort);
        const lines = (text + decoder.decode(value, { stream: true })).split("\n");
        text = lines.pop()!.slice(-100);
        if (lines.some((line) => /^event: ?(ended|stale)\r?$/.test(line))) hint();
      }
    } catch {
      // Cut, refused or silent: begun anew by the caller.
    } finally {
      cancel();
      abort();
      signal.removeEventListener("abort", abort);
    }
    return begun;
  }

  async function loop(signal: AbortSignal): Promise<void> {
    for (let failures = 0; !signal.aborted; ) {
      let ms = another;
      const held = async () => {
        failures = (await listen(signal)) ? 0 : failures + 1;
        ms = Math.min(longest, 1000 * 2 ** failures) * (0.5 + p.random() / 2);
      };
      if (p.lock) await p.lock("counterfoil " + url, held);
      else await held();
      if (!signal.aborted) await pause(ms, signal);
    }
  }

  return (on) => {
    if (on === !!stop) return;
    stop?.abort();
    stop = on ? new AbortController() : undefined;
    if (stop) void loop(stop.signal);
  };
}
