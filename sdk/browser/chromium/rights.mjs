// Rights that change, and proofs that grow old (pain 17, RFC 9470).
import assert from "node:assert/strict";
import { password, until } from "./browser.mjs";

export default (cases) => {
  cases("a role is given and taken: the next call has it, after one refresh that nobody sees", async (site) => {
    const tab = await site.signedIn();
    assert.equal((await tab.call("/api/report")).status, 403);
    for (const [roles, status] of [[["admin"], 200], [[], 403]]) {
      await site.backend("PATCH", `/users/${tab.subject}`, { roles });
      const before = await site.count();
      const sent = await site.count("/api/report");
      assert.equal((await tab.call("/api/report")).status, status);
      assert.equal((await site.count()) - before, 1);
      assert.deepEqual((await site.log("/api/report")).slice(sent).map((e) => e.status), [401, status]);
      assert.deepEqual((await tab.token()).roles ?? [], roles);
      // With the token at hand, nothing more is asked.
      assert.equal((await tab.call("/api/report")).status, status);
      assert.equal((await site.count()) - before, 1);
    }
    assert.deepEqual(await tab.statuses(), ["signed-in"]);
  });

  cases("many calls that find their token stale at once share one refresh", async (site) => {
    const tab = await site.signedIn();
    await site.backend("PATCH", `/users/${tab.subject}`, { roles: ["admin"] });
    const before = await site.count();
    const answers = await Promise.all(Array.from({ length: 20 }, () => tab.call("/api/report")));
    assert.ok(answers.every(({ status }) => status === 200), JSON.stringify(answers.map((a) => a.status)));
    assert.ok((await site.count()) - before <= 2, `${(await site.count()) - before} refreshes`);
  });

  cases("a page that watches has its new rights before it asks", async (site) => {
    const tab = await site.signedIn("ada@example.com", { watch: true });
    await until("a stream is held", async () => (await site.count("/auth/session/watch")) > 0);
    await site.backend("PATCH", `/users/${tab.subject}`, { roles: ["admin"] });
    await until("the token has the role", async () => (await tab.token()).roles?.includes("admin"));
    assert.equal((await tab.call("/api/report")).status, 200);
    assert.deepEqual((await site.log("/api/report")).map((e) => e.status), [200]);
    assert.deepEqual(await tab.statuses(), ["signed-in"]);
  });

  cases("step-up: the user is asked once, and what was refused is done", async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0 });
    await tab.press();
    await tab.profile.pass(600);
    assert.equal((await tab.call()).status, 200);
    const payments = Array.from({ length: 3 }, () => tab.call("/api/pay", { method: "POST", body: "{}" }));
    await tab.page.fill("#again input", password);
    await tab.page.click("#again button");
    assert.deepEqual((await Promise.all(payments)).map(({ status, body }) => `${status} ${body.subject}`), Array(3).fill(`200 ${tab.subject}`));
    assert.deepEqual(await tab.page.evaluate(() => challenges), [{ maxAge: 300, acrValues: [] }]);
    assert.deepEqual((await site.log("/api/pay")).map(({ status, body }) => [status, JSON.stringify(body)]), [401, 401, 401, 200, 200, 200].map((s) => [s, "{}"]));
    assert.ok((await tab.statuses()).every((status) => status === "signed-in"));
    // The step-up has replaced the cookie: the session goes on with the new one.
    await tab.profile.pass(70);
    await tab.works();
  });

  cases("step-up: who does not want to stays signed in, and is asked again the next time", async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0 });
    await tab.profile.pass(600);
    for (let i = 1; i <= 2; i++) {
      const payment = tab.call("/api/pay", { method: "POST", body: "{}" });
      await tab.page.click("#again [value=no]");
      assert.equal((await payment).status, 401);
      assert.equal((await tab.page.evaluate(() => challenges)).length, i);
    }
    await tab.works();
    assert.deepEqual(await tab.statuses(), ["signed-in"]);
  });

  cases("step-up: a second tab goes on with the cookie that the first has had replaced", async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0 });
    const other = await tab.profile.tab();
    await other.shows(/^signed in/);
    await tab.profile.pass(600);
    const payment = tab.call("/api/pay", { method: "POST", body: "{}" });
    await tab.page.fill("#again input", password);
    await Promise.all([tab.page.click("#again button"), other.works(tab.subject)]);
    assert.equal((await payment).status, 200);
    await other.works(tab.subject);
    await tab.profile.pass(70);
    await Promise.all([tab.works(), other.works(tab.subject)]);
    assert.ok((await other.statuses()).every((status) => status === "signed-in"));
  });
};
