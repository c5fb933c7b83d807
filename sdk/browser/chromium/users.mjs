// Two users, one browser: what arrives late from the first must not touch the second.
import assert from "node:assert/strict";

/** Ada is signed in, and her refresh is on its way with this answer. */
async function underWay(site, fault) {
  const tab = await site.signedIn("ada@example.com", { clock: 0 });
  const ada = tab.subject;
  await site.faults({ path: "/auth/refresh", do: "hold", times: 1, ...fault });
  return { tab, ada };
}

/** Grace alone is signed in in this tab, now and later. */
async function alone(site, tab, grace, since) {
  await tab.shows(new RegExp(`^signed in as ${grace}$`));
  assert.equal((await tab.token()).sub, grace);
  await tab.works(grace);
  await tab.profile.pass(70);
  await tab.works(grace);
  const states = (await tab.states()).filter(({ at }) => at >= since);
  assert.ok(states.every(({ status, session }) => status === "signed-in" && session.subject === grace), JSON.stringify(states));
}

export default (cases) => {
  cases("a refresh of the first user that is answered after the second signed in", async (site) => {
    const { tab, ada } = await underWay(site);
    await tab.profile.pass(50);
    await site.held();
    const grace = await tab.signUp("grace@example.com");
    const since = (await tab.states()).at(-1).at;
    assert.notEqual(grace, ada);
    await site.release();
    await alone(site, tab, grace, since);
  });

  cases("the end of the first user's session that is told after the second signed in", async (site) => {
    const { tab } = await underWay(site);
    await site.backend("DELETE", `/sessions/${(await tab.state()).session.sid}`);
    const call = tab.call();
    await site.held();
    const grace = await tab.signUp("grace@example.com");
    const since = (await tab.states()).at(-1).at;
    await site.release();
    await call;
    await alone(site, tab, grace, since);
  });

  cases("the first user's refresh in one tab, while the second signs in in another", async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0 });
    const ada = tab.subject;
    const other = await tab.profile.tab();
    await other.shows(/^signed in/);
    await site.faults({ path: "/auth/refresh", do: "hold", times: 2 });
    await tab.profile.pass(50);
    await site.held(2);
    const grace = await other.signUp("grace@example.com");
    assert.notEqual(grace, ada);
    await tab.shows(new RegExp(grace));
    const since = (await tab.states()).at(-1).at;
    await site.release();
    await alone(site, tab, grace, since);
    await other.works(grace);
  });

  cases("a call of the first user that is refused late is not repeated as the second", async (site) => {
    const tab = await site.signedIn("ada@example.com");
    const ada = tab.subject;
    await site.backend("DELETE", `/sessions/${(await tab.state()).session.sid}`);
    await site.faults({ path: "/api/me", do: "hold", times: 1 });
    const call = tab.call("/api/me", { method: "POST" });
    await site.held();
    const grace = await tab.signUp("grace@example.com");
    await site.release();
    const { status, body } = await call;
    assert.deepEqual([status, body?.subject], [401, undefined], "what Ada had asked for was done as Grace");
    const bearers = (await site.log("/api/me")).map(({ bearer }) => bearer.split(" of ")[1]);
    assert.deepEqual(bearers, [ada]);
    await tab.works(grace);
    assert.match(await tab.who(), new RegExp(grace));
  });

  cases("a call of the first user that waits for its token is not sent as the second", async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0 });
    const other = await tab.profile.tab();
    await other.shows(/^signed in/);
    await site.faults({ path: "/auth/refresh", do: "hold", times: 2 });
    await tab.profile.pass(70);
    await site.held(2);
    const call = tab.call("/api/me", { method: "POST" });
    const grace = await other.signUp("grace@example.com");
    assert.deepEqual((await call).code, "conflict");
    assert.equal(await site.count("/api/me"), 0, "what Ada had asked for was done as Grace");
    await site.release();
    await tab.shows(new RegExp(grace));
    await tab.works(grace);
  });

  cases("a session that was replaced in another window of the browser does not end the new one", async (site) => {
    const tab = await site.signedIn("ada@example.com", { clock: 0 });
    // A page without the SDK, such as a hosted sign-in: no signals.
    const page = await tab.profile.context.newPage();
    await page.goto(`${site.url}/page/away.html`);
    const grace = await page.evaluate(async (body) => {
      const response = await fetch("/auth/sign-up", { method: "POST", headers: { "Content-Type": "application/json" }, body });
      return (await response.json()).session.subject;
    }, JSON.stringify({ email: "grace@example.com", password: "paper boats on a green river" }));
    await page.close();
    await tab.call();
    // The first refusal names the session before: it is asked once more, with the cookie as it is then.
    await tab.page.clock.runFor(5000);
    await tab.shows(new RegExp(`^signed in as ${grace}$`));
    await tab.works(grace);
    assert.ok(!(await tab.statuses()).includes("ended"));
  });

  cases("signing out while a refresh is on its way: nobody is signed in afterwards", async (site) => {
    const { tab } = await underWay(site);
    await tab.profile.pass(50);
    await site.held();
    await tab.page.evaluate(() => session.signOut());
    await tab.shows(/^nobody is signed in$/);
    await site.release();
    assert.equal((await tab.call()).status, 401);
    assert.equal((await tab.token()).code, "credential_missing");
    assert.deepEqual(await tab.statuses(), ["signed-in", "signed-out"]);
    assert.deepEqual(await tab.profile.context.cookies(), []);
  });
};
