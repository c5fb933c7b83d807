// Machines that sleep, tabs that are frozen, pages that come back (pains 8, 21).
import assert from "node:assert/strict";
import { until } from "./browser.mjs";

export default (cases) => {
  cases("a night asleep: one refresh on waking, and the user notices nothing", async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0 });
    const before = await site.count();
    await tab.profile.pass(8 * 3600);
    await tab.works();
    const refreshes = (await site.count()) - before;
    assert.ok(refreshes >= 1 && refreshes <= 2, `${refreshes} refreshes`);
    assert.deepEqual(await tab.statuses(), ["signed-in"]);
  });

  cases("asleep beyond the end of the session: the page says so, and why", async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0 });
    await tab.profile.pass(8 * 24 * 3600);
    await tab.shows(/^signed out: /);
    assert.equal((await tab.state()).code, "session_expired");
    assert.equal((await tab.token()).code, "session_expired");
  });

  cases("a frozen tab: what went stale meanwhile is mended by its next call", async (site) => {
    const tab = await site.signedIn();
    const cdp = await tab.profile.context.newCDPSession(tab.page);
    await cdp.send("Page.setWebLifecycleState", { state: "frozen" });
    // Only the authority's clock goes on: the page believes that its token is young.
    await site.forward(120);
    await cdp.send("Page.setWebLifecycleState", { state: "active" });
    await tab.works();
    assert.deepEqual(await tab.statuses(), ["signed-in"]);
  });

  cases("a frozen tab whose session was ended meanwhile shows it", async (site) => {
    const tab = await site.signedIn();
    const cdp = await tab.profile.context.newCDPSession(tab.page);
    await cdp.send("Page.setWebLifecycleState", { state: "frozen" });
    await (await site.device("ada@example.com")).signOut({ which: "others" });
    await cdp.send("Page.setWebLifecycleState", { state: "active" });
    await tab.call();
    await tab.shows(/^signed out: signed_out_everywhere$/);
  });

  for (const watch of [false, true]) {
    const page = watch ? "a page that watches its session" : "a page";
    cases(`${page} out of the back/forward cache is up to date before the user acts`, async (site) => {
      const tab = await site.signedIn("ada@example.com", { watch });
      const { page } = tab;
      const away = page.url().replace(/home.*/, "away.html");
      await page.evaluate(() => (globalThis.kept = true));
      await page.goto(away);
      await page.goBack({ waitUntil: "commit" });
      await page.waitForFunction(() => globalThis.session);
      assert.equal(await page.evaluate(() => globalThis.kept), true, "the page was loaded anew: it could not be kept");
      await tab.shows(/^signed in/);
      await tab.works();

      await page.goto(away);
      await (await site.device("ada@example.com")).signOut({ which: "others" });
      await page.goBack({ waitUntil: "commit" });
      await page.waitForFunction(() => globalThis.session);
      assert.equal(await page.evaluate(() => globalThis.kept), true, "the page was loaded anew: it could not be kept");
      await tab.shows(/^signed out: signed_out_everywhere$/);
    });
  }

  cases("idle expiry: what the page does by itself does not put it off", { Idle: 600 }, async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0 });
    const { idleExpiresAt } = (await tab.state()).session;
    for (let i = 0; i < 8; i++) {
      await tab.profile.pass(60);
      await tab.works(); // a poll, as dashboards do
    }
    const refreshes = await site.log("/auth/refresh");
    assert.ok(refreshes.slice(-5).every(({ body }) => body.active === false), "refreshes without input claim that the user is there");
    assert.equal((await tab.state()).session.idleExpiresAt, idleExpiresAt);
    for (let i = 0; i < 4; i++) await tab.profile.pass(60);
    await tab.shows(/^signed out: /);
    assert.equal((await tab.state()).code, "session_expired");
  });

  cases("idle expiry: input puts it off, and only input", { Idle: 600 }, async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0 });
    const { sid, idleExpiresAt } = (await tab.state()).session;
    const rounds = async (number) => {
      for (let i = 0; i < number; i++) {
        await tab.profile.pass(60);
        await tab.works();
      }
    };
    await rounds(4);
    await tab.press();
    await rounds(1);
    // Authorities write it down every few seconds, by a clock that is not moved here.
    const stored = async () => (await site.backend("GET", `/sessions/${sid}`)).idle_expires_at - idleExpiresAt;
    await until("the activity is stored", async () => (await stored()) > 0);
    await rounds(8); // 780 s after the sign-in, 480 s after the input
    const later = (await tab.state()).session.idleExpiresAt - idleExpiresAt;
    assert.ok(later >= 240 && later <= 360, `put off by ${later} s by an input 240 s to 300 s after the sign-in`);
    for (let i = 0; i < 3; i++) await tab.profile.pass(60);
    await tab.shows(/^signed out: /);
  });
};
