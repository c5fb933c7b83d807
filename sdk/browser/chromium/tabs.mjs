// Several tabs of one browser (pains 1, 5, 9).
import assert from "node:assert/strict";
import { until } from "./browser.mjs";

export default (cases) => {
  for (const [number, rounds] of [[2, 10], [10, 5]]) {
    cases(`${number} tabs refresh side by side, again and again: nobody is signed out, and each asks once a token`, async (site) => {
      const first = await site.signedIn("ada@example.com", { clock: 0 });
      const { profile, subject } = first;
      const tabs = [first];
      while (tabs.length < number) tabs.push(await profile.tab());
      await Promise.all(tabs.map((tab) => tab.shows(new RegExp(`^signed in as ${subject}$`))));
      const before = await site.count();
      for (let i = 0; i < rounds; i++) {
        // All tokens die at once, and each tab needs one for several calls.
        await profile.pass(70);
        const answers = await Promise.all(tabs.flatMap((tab) => Array.from({ length: 3 }, () => tab.call())));
        assert.deepEqual(new Set(answers.map(({ status, body }) => `${status} ${body?.subject}`)), new Set([`200 ${subject}`]));
      }
      const refreshes = (await site.count()) - before;
      // One for what had died, and one that may have been on its way when the authority's clock was moved first.
      assert.ok(refreshes >= rounds && refreshes <= 2 * rounds * number, `${refreshes} refreshes of ${number} tabs in ${rounds} rounds`);
      assert.ok((await site.log("/auth/refresh")).slice(before).every(({ status }) => status === 200));
      for (const tab of tabs) {
        // A busy machine may answer later than a page waits: that is no sign-out.
        const statuses = await tab.statuses();
        assert.ok(statuses.at(-1) === "signed-in" && statuses.every((status) => /signed-in|refreshing-later/.test(status)), `a tab told of ${statuses}`);
      }
      assert.equal((await site.backend("GET", `/users/${subject}/sessions`)).sessions.length, 1, "one browser, one session");
    });
  }

  cases("a sign-in and a sign-out in one tab reach the others, by signals without a token", async (site) => {
    const first = await site.signedIn();
    const second = await first.profile.tab();
    const third = await first.profile.tab();
    await Promise.all([second, third].map((tab) => tab.shows(/^signed in/)));
    await first.page.evaluate(() => session.signOut());
    await Promise.all([first, second, third].map((tab) => tab.shows(/^nobody is signed in$/)));
    const subject = await second.signIn("ada@example.com");
    await Promise.all([first, third].map((tab) => tab.shows(new RegExp(subject))));
    await Promise.all([first, second, third].map((tab) => tab.works(subject)));
    const signals = await second.page.evaluate(() => signals);
    assert.ok(signals.length > 0, "nothing was said to the other tabs");
  });

  cases("a browser without locks and channels: more requests, and the same for the user", async (site) => {
    const options = { watch: true, without: ["locks", "BroadcastChannel"] };
    const first = await site.signedIn("ada@example.com", options);
    assert.deepEqual(await first.page.evaluate(() => [typeof BroadcastChannel, typeof navigator.locks]), ["undefined", "undefined"]);
    const second = await first.profile.tab(options);
    await second.shows(/^signed in/);
    await Promise.all([first.works(), second.works(first.subject)]);
    await until("each tab watches", async () => (await site.count("/auth/session/watch")) === 2);
    await (await site.device("ada@example.com")).signOut({ which: "others" });
    await Promise.all([first, second].map((tab) => tab.shows(/^signed out: signed_out_everywhere$/)));
    // Nothing tells the other tab of a sign-in; the user's coming back does.
    await first.signIn("ada@example.com");
    await second.page.evaluate(() => dispatchEvent(new Event("focus")));
    await second.shows(/^signed in/);
  });

  cases("a tab that is closed in the middle of its refresh keeps nobody waiting", async (site) => {
    const first = await site.signedIn("ada@example.com", { clock: 0 });
    const { profile, subject } = first;
    const second = await profile.tab();
    await second.shows(/^signed in/);
    await site.faults({ path: "/auth/refresh", do: "hold", times: 1 });
    await profile.pass(70);
    const asked = first.call().catch(() => {}); // its page goes
    await site.held();
    await Promise.all([first.page.close(), second.works(subject)]);
    await asked;
  });
};
