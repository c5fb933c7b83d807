// Clocks that are wrong (pain 10).
import assert from "node:assert/strict";

export default (cases) => {
  for (const [name, skew] of [["fast", 3600], ["slow", -3600]]) {
    cases(`a clock an hour ${name}: as any other, and the skew is told`, async (site) => {
      const tab = await site.signedIn("ada@example.com", { clock: skew });
      await tab.works();
      assert.equal(await site.count(), 1, "refreshes before the token is old"); // the first asked who is there
      for (let i = 0; i < 5; i++) {
        await tab.profile.pass(55);
        await tab.works();
      }
      assert.ok((await site.count()) <= 1 + 5 * 2, `${await site.count()} refreshes`);
      const told = await tab.page.evaluate(() => session.clockSkew);
      assert.ok(Math.abs(told - skew) < 10, `the skew is told as ${told} s`);
      assert.deepEqual(await tab.statuses(), ["signed-in"]);
    });
  }

  for (const [name, jump] of [["ahead", 3600], ["back", -3600], ["years ahead", 1e9], ["to 1970", -1.7e9]]) {
    cases(`a clock that jumps ${name} while the page runs: one refresh at most, no loop`, async (site) => {
      const tab = await site.signedIn("ada@example.com", { clock: 0 });
      const before = await site.count();
      await tab.page.clock.setSystemTime(Math.max(0, Date.now() + jump * 1000));
      for (let i = 0; i < 10; i++) await tab.works();
      const refreshes = (await site.count()) - before;
      assert.ok(refreshes <= 1, `${refreshes} refreshes`);
      // Time goes on as before.
      await tab.profile.pass(70);
      await tab.works();
      assert.ok((await site.count()) - before <= 4, `${(await site.count()) - before} refreshes`);
      assert.deepEqual(await tab.statuses(), ["signed-in"]);
    });
  }

  cases("an authority whose clock is set back does not lock anybody out", async (site) => {
    const tab = await site.signedIn();
    await site.forward(-20);
    await tab.page.evaluate(() => session.getToken());
    await tab.works().catch(() => {}); // the token may be from the future, for the service
    await tab.works();
  });
};
