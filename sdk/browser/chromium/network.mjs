// Networks that fail: offline, answers that are lost, servers that refuse (pains 3, 6, 7, 9).
import assert from "node:assert/strict";
import { until } from "./browser.mjs";

/** Lets time pass, less at once than an answer may take, until all is well. */
async function recovers(tab) {
  await until("the page recovers", async () => {
    await tab.page.clock.runFor(2000);
    return /^signed in/.test(await tab.who());
  });
}

export default (cases) => {
  cases("offline and back: the token at hand goes on, and all is well afterwards", async (site) => {
    const tab = await site.signedIn();
    await tab.profile.context.setOffline(true);
    assert.equal((await tab.call()).name, "TypeError", "a request without a network fails like any");
    assert.equal((await tab.token()).sub, tab.subject, "the token at hand is given");
    assert.match(await tab.who(), /^signed in/);
    await tab.profile.context.setOffline(false);
    await tab.works();
    assert.deepEqual(await tab.statuses(), ["signed-in"]);
  });

  cases("offline across the expiry of the token: tried again later, never signed out, and back by itself", async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0, wait: 2, timeout: 2 });
    const { context } = tab.profile;
    let tries = 0;
    context.on("request", (request) => (tries += request.url().endsWith("/auth/refresh") ? 1 : 0));
    await context.setOffline(true);
    await tab.profile.pass(70);
    await tab.shows(/^trying again: unavailable$/);
    assert.equal((await tab.token()).code, "unavailable");
    assert.deepEqual([(await tab.call()).status, (await tab.state()).session.subject], [0, tab.subject]);
    tries = 0;
    for (let i = 0; i < 10; i++) await tab.profile.pass(60);
    assert.ok(tries <= 12, `${tries} tries in ten minutes without a network`);
    await context.setOffline(false); // the browser says "online"
    await tab.shows(/^signed in/);
    await tab.works();
    assert.deepEqual(await tab.statuses(), ["signed-in", "refreshing-later", "signed-in"]);
  });

  cases("a page that opens while the authority is unreachable settles, and signs in when it is back", async (site) => {
    const tab = await site.signedIn();
    await site.faults({ path: "/auth/", do: "close" });
    await tab.open();
    await tab.shows(/^trying again: unavailable$/);
    assert.equal((await tab.page.evaluate(() => session.ready)).status, "refreshing-later");
    await site.faults();
    await tab.shows(/^signed in/);
    await tab.works();
  });

  for (const fault of ["drop", "cut", "hang"]) {
    cases(`lost refresh answers (${fault}): asked for again, nobody is signed out`, async (site) => {
      const options = fault === "hang" ? { timeout: 3 } : {};
      const tab = await site.signedIn("ada@example.com", options);
      const lost = async () => (await site.log("/auth/refresh")).filter((e) => e.fault === fault);
      // Once for a page that needs its first token, once for one whose token has been refused.
      await site.faults({ path: "/auth/refresh", do: fault, times: 2 });
      await tab.open("home.html", options);
      await tab.works();
      await site.forward(70);
      await site.faults({ path: "/auth/refresh", do: fault, times: 2 });
      await tab.works();
      assert.deepEqual((await lost()).map(({ status }) => status), [200, 200, 200, 200], "each was processed");
      const statuses = await tab.statuses();
      assert.ok(statuses.at(-1) === "signed-in" && statuses.every((status) => /signed-in|refreshing-later/.test(status)), statuses.join());
    });
  }

  cases("a refresh in the background that takes long keeps nobody waiting who has a valid token", async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0 });
    await site.faults({ path: "/auth/refresh", do: "hold", times: 1 });
    await tab.page.clock.pauseAt(Date.now() + 50_000); // it is due, and the token lives on
    await site.held();
    await tab.works();
    assert.equal((await tab.token()).sub, tab.subject);
    await site.release();
    await tab.works();
    assert.deepEqual(await tab.statuses(), ["signed-in"]);
  });

  cases("the answer to a sign-out is lost: the page finds out that it has ended", async (site) => {
    const tab = await site.signedIn();
    await site.faults({ path: "/auth/sign-out", do: "cut" }, { path: "/auth/sign-out", do: "drop" });
    const thrown = await tab.page.evaluate(() => session.signOut().then(() => "", (error) => error.code));
    assert.ok(thrown === "" || thrown === "unavailable", thrown);
    await tab.shows(/^(signed out: signed_out|nobody is signed in)$/);
    assert.equal((await tab.call()).status, 401);
  });

  cases("429 with Retry-After: not one request before, and none of the calls signs out", async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0, wait: 2 });
    const answer = { type: "about:blank", status: 429, code: "rate_limited", detail: "Later." };
    await site.faults({
      path: "/auth/refresh", do: "answer", status: 429, header: { "Retry-After": "30", "Content-Type": "application/problem+json" }, body: JSON.stringify(answer),
    });
    const before = await site.count();
    await tab.profile.pass(70);
    await tab.shows(/^trying again: rate_limited$/);
    const codes = await tab.page.evaluate(async () => {
      for (const event of ["online", "focus", "pageshow"]) dispatchEvent(new Event(event));
      return Promise.all(Array.from({ length: 50 }, () => session.getToken().catch(({ code }) => code)));
    });
    assert.deepEqual(new Set(codes), new Set(["rate_limited"]));
    await tab.page.clock.runFor(25_000);
    assert.equal((await site.count()) - before, 1, "the authority was asked again too early");
    await site.faults();
    await recovers(tab);
    await tab.works();
    assert.equal((await site.count()) - before, 2);
  });

  const html = { "Content-Type": "text/html" };
  for (const [name, fault] of [
    ["503 of the authority", { status: 503, header: { "Content-Type": "application/problem+json" }, body: '{"status":503,"code":"unavailable"}' }],
    ["502 of a proxy", { status: 502, header: html, body: "<h1>Bad gateway</h1>" }],
    ["a captive portal's page", { status: 200, header: html, body: "<h1>Accept our terms</h1>" }],
    ["a captive portal's redirect", { status: 302, header: { Location: "/page/away.html" } }],
    ["a proxy's own 401", { status: 401, header: { "WWW-Authenticate": 'Basic realm="proxy"' } }],
    ["a 404 while the authority is deployed", { status: 404, header: html, body: "<h1>Not found</h1>" }],
  ]) {
    cases(`${name}: tried again with growing pauses, then as before`, async (site) => {
      const tab = await site.signedIn("ada@example.com", { clock: 0, wait: 2 });
      await site.faults({ path: "/auth/", do: "answer", ...fault });
      const before = await site.count();
      await tab.profile.pass(70);
      await tab.shows(/^trying again: unavailable$/);
      for (let i = 0; i < 20; i++) {
        await tab.page.clock.runFor(6_000);
        assert.match(await tab.who(), /^trying again/);
      }
      const tries = (await site.count()) - before;
      assert.ok(tries >= 2 && tries <= 15, `${tries} requests in two minutes`);
      await site.faults();
      await recovers(tab);
      await tab.works();
    });
  }
};
