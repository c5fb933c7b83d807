// How the SDK gets into a page, and pages on another host than the authority (pain 27).
import assert from "node:assert/strict";
import { until } from "./browser.mjs";

export default (cases) => {
  // The page's policy allows nothing inline and no code or markup from text; each case fails on a violation.
  for (const [name, page] of [["ES modules", "home.html"], ["a script tag", "script.html"]]) {
    cases(`${name} under a strict policy: sign-up to sign-out`, async (site) => {
      const tab = await site.signedIn("ada@example.com", { page });
      await tab.works();
      await tab.open(page);
      await tab.shows(/^signed in/);
      await tab.page.evaluate(() => session.signOut());
      await tab.shows(/^nobody is signed in$/);
      assert.equal((await tab.call()).status, 401);
      assert.equal((await tab.call("/api/anyone")).status, 200, "without a session, fetch is fetch");
      const wrong = await tab.page.evaluate(() => session.signIn({ email: "ada@example.com", password: "something else entirely" }).catch(({ code }) => code));
      assert.equal(wrong, "invalid_credentials");
      await tab.signIn("ada@example.com");
      await tab.works();
    });
  }

  cases("a relative address belongs to where the page is by now", async (site) => {
    const tab = await site.signedIn("ada@example.com");
    await tab.page.evaluate(() => history.pushState(null, "", "/api/basket"));
    assert.deepEqual((await tab.call("me")).body?.subject, tab.subject);
  });

  cases("app. and auth. on one site, over TLS: cookies travel, scripts never see them", { Hosts: true }, async (site) => {
    const auth = site.url.replace("app.", "auth.");
    const api = site.url.replace("app.", "api.");
    const options = { authority: auth + "/auth", origins: [api], watch: true };
    const tab = await site.signedIn("ada@example.com", options);
    const { page, profile } = tab;
    const call = await tab.call(api + "/api/me");
    assert.deepEqual([call.status, call.body.subject], [200, tab.subject]);
    // Not named, so it gets no token: not even the page's own origin.
    assert.equal((await tab.call("/api/me")).status, 401);
    assert.deepEqual((await site.log("/api/me")).map(({ bearer }) => !!bearer), [true, false]);

    await tab.open("home.html", options);
    await tab.shows(/^signed in/);
    assert.equal(await page.evaluate(() => document.cookie), "");
    const cookies = await profile.context.cookies();
    assert.ok(cookies.length > 0 && cookies.every(({ domain, httpOnly, secure }) => domain === new URL(auth).hostname && httpOnly && secure), JSON.stringify(cookies));
    const onAuth = await profile.context.newPage();
    await onAuth.goto(auth + "/page/away.html");
    assert.equal(await onAuth.evaluate(() => document.cookie), "");
    await onAuth.close();

    await until("a stream is held", async () => (await site.count("/auth/session/watch")) > 0);
    await (await site.device("ada@example.com")).signOut({ which: "others" });
    await tab.shows(/^signed out: signed_out_everywhere$/);
  });

  cases("a page that is not trusted gets nothing of the session, cookie or not", { Hosts: true }, async (site) => {
    const auth = site.url.replace("app.", "auth.");
    const options = { authority: auth + "/auth" };
    const tab = await site.signedIn("ada@example.com", options);
    const page = await tab.profile.context.newPage();
    await page.goto(site.url.replace("app.", "evil.") + "/page/away.html");
    const answers = await page.evaluate(async (auth) => {
      const attempt = (path, init) => fetch(auth + path, { credentials: "include", ...init }).then(({ status, type }) => `${status} ${type}`, ({ name }) => name);
      return [
        await attempt("/auth/refresh", { method: "POST" }),
        await attempt("/auth/session"),
        await attempt("/auth/sign-out", { method: "POST", mode: "no-cors" }),
      ];
    }, auth).catch((error) => error.message);
    assert.deepEqual(answers, ["TypeError", "TypeError", "TypeError"]);
    assert.deepEqual((await site.log("/auth")).slice(-3).map(({ status }) => status), [403, 200, 403]); // what was read in vain is not to be read
    await page.close();
    const { faults } = tab.profile;
    assert.ok(faults.length > 0 && faults.every((fault) => /blocked by CORS policy/.test(fault)), faults.join("\n"));
    faults.length = 0;
    await tab.shows(/^signed in/);
    assert.ok((await tab.token()).sub === tab.subject);
    await tab.page.reload();
    await tab.shows(/^signed in/);
  });
};
