// Sessions that are ended from elsewhere (pains 4, 11, 13, 16).
import assert from "node:assert/strict";
import { until } from "./browser.mjs";

export default (cases) => {
  cases("ended from another device: a page that watches knows within a second, and why", async (site) => {
    const tab = await site.signedIn("ada@example.com", { watch: true });
    const second = await tab.profile.tab({ watch: true });
    await second.shows(/^signed in/);
    const phone = await site.device("ada@example.com");
    await until("a stream is held", async () => (await site.count("/auth/session/watch")) > 0);
    const ended = Date.now();
    await phone.signOut({ which: "others" });
    for (const page of [tab, second]) {
      await page.shows(/^signed out: signed_out_everywhere$/);
      const { at, code, sid } = (await page.states()).at(-1);
      assert.ok(at - ended < 1000, `the page knew ${at - ended} ms after the sign-out was asked for`);
      assert.equal(code, "session_revoked");
      assert.notEqual(sid, phone.sid);
    }
    assert.ok((await site.count("/auth/session/watch")) <= 2, "one tab watches for all");
  });

  cases("ended from another device: a page that does not watch knows with its next call", async (site) => {
    const tab = await site.signedIn();
    const phone = await site.device("ada@example.com");
    await phone.signOut({ which: "others" });
    assert.match(await tab.who(), /^signed in/);
    assert.equal((await tab.call()).status, 401);
    await tab.shows(/^signed out: signed_out_everywhere$/);
    const last = (await tab.states()).at(-1);
    assert.deepEqual([last.status, last.code, last.reason], ["ended", "session_revoked", "signed_out_everywhere"]);
    assert.ok(Math.abs(last.endedAt - Date.now() / 1000) < 60);
    assert.deepEqual((await tab.token()), { code: "session_revoked", reason: "signed_out_everywhere" });
    // From here on, nothing is asked in vain.
    const before = await site.count();
    for (let i = 0; i < 5; i++) assert.equal((await tab.call()).status, 401);
    assert.equal(await site.count(), before);
  });

  for (const [name, reason, act] of [
    ["the account is disabled", "account_disabled", (site, tab) => site.backend("PATCH", `/users/${tab.subject}`, { disabled: true })],
    ["the account is deleted", "account_deleted", (site, tab) => site.backend("DELETE", `/users/${tab.subject}`)],
    ["the backend ends the session", "revoked", async (site, tab) => site.backend("DELETE", `/sessions/${(await tab.state()).session.sid}`)],
  ]) {
    cases(`${name}: the page says so`, async (site) => {
      const tab = await site.signedIn("ada@example.com", { watch: true });
      await until("a stream is held", async () => (await site.count("/auth/session/watch")) > 0);
      await act(site, tab);
      await tab.shows(new RegExp(`^signed out: ${reason}$`));
    });
  }

  cases("the devices of the user: listed, and ended one by one", async (site) => {
    const tab = await site.signedIn();
    const phone = await site.device("ada@example.com");
    const tablet = await site.device("ada@example.com");
    const list = () => tab.page.evaluate(async () => (await session.devices.list()).map(({ sid, current }) => ({ sid, current: !!current })));
    assert.deepEqual((await list()).map(({ current }) => current).sort(), [false, false, true]);
    await tab.page.evaluate((sid) => session.devices.end(sid), phone.sid);
    assert.ok((await list()).every(({ sid }) => sid !== phone.sid) && (await list()).some(({ sid }) => sid === tablet.sid));
    await tab.page.evaluate(() => session.devices.endOthers());
    assert.deepEqual((await list()).map(({ current }) => current), [true]);
    await tab.works();
  });
};
