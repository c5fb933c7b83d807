// Several tabs of one browser (pains 1, 5, 9).
import assert from "node:assert/strict";

export default (cases) => {
  for (const number of [2, 10]) {
    cases(`${number} tabs refresh side by side for ten minutes: nobody is signed out, and each asks once a token`, async (site) => {
      const first = await site.signedIn("ada@example.com", { clock: 0 });
      const { profile, subject } = first;
      const tabs = [first];
      while (tabs.length < number) tabs.push(await profile.tab());
      await Promise.all(tabs.map((tab) => tab.shows(new RegExp(`^signed in as ${subject}$`))));
      const before = await site.count();
      const rounds = 600 / 60;
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
        tab.subject = subject;
        assert.ok((await tab.statuses()).every((status) => status === "signed-in"), `a tab told of ${await tab.statuses()}`);
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
