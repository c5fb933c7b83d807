import type { Platform, Wake } from "./platform.js";

/** The browser: a page or a worker. */
export function browser(authority: string): Platform {
  const page = globalThis.document as Document | undefined; // workers have none
  const locks = (navigator as Navigator & { locks?: LockManager }).locks;
  let channel: BroadcastChannel | undefined;
  return {
    fetch: (input, init) => fetch(input, init),
    base: location.href,
    baseURI: () => page?.baseURI ?? location.href,
    mono: () => performance.now(),
    wall: () => Date.now(),
    random: () => Math.random(),
    timer(ms, call) {
      const timer = setTimeout(call, ms);
      return () => clearTimeout(timer);
    },
    visible: () => page?.visibilityState !== "hidden",
    post: (signal) => channel?.postMessage(signal),
    // Without locks, and where they are refused (opaque origins), the lock is nobody's.
    ...(locks && {
      lock: (name: string, held: () => Promise<void>) =>
        locks.request(name, { ifAvailable: true }, async (lock): Promise<boolean> => {
          if (lock) await held();
          return !!lock;
        }) as Promise<unknown> as Promise<boolean>,
    }),
    listen(to) {
      const controller = new AbortController();
      const on = (target: EventTarget | undefined, types: string, call: (event: Event) => unknown) => {
        for (const type of types.split(" ")) target?.addEventListener(type, call, { passive: true, capture: true, signal: controller.signal });
      };
      // Closed while the page is in the back/forward cache: an open channel would keep it out of there.
      const open = () => {
        try {
          channel ??= new BroadcastChannel("counterfoil " + new URL(authority, location.href).href);
          channel.onmessage = (event: MessageEvent<unknown>) => to.signal(event.data);
        } catch {
          channel = undefined;
        }
      };
      const shut = () => {
        channel?.close();
        channel = undefined;
      };
      const wake = (name: Wake) => () => to.wake(name);
      open();
      on(globalThis, "online", wake("online"));
      // Of the window: fields that get the focus pass by here, too.
      on(globalThis, "focus", (event) => event.target === globalThis && to.wake("focus"));
      on(globalThis, "pageshow", (event) => {
        open();
        if ((event as PageTransitionEvent).persisted) to.wake("back");
      });
      on(globalThis, "pagehide", () => {
        to.hidden();
        shut();
      });
      on(page, "resume", wake("resume"));
      on(page, "visibilitychange", () => (page!.visibilityState === "hidden" ? to.hidden() : to.wake("visible")));
      on(page, "pointerdown keydown touchstart wheel", () => to.touch());
      return () => {
        controller.abort();
        shut();
      };
    },
  };
}
