// Compiled, never run: what the declarations promise to users.
import { createSession, CounterfoilError } from "@counterfoil/browser";
import type { BrowserSession, Challenge, Code, EndCode, Options, Session, State } from "@counterfoil/browser";
import { addPasskey, listPasskeys, signInWithPasskey, signUpWithPasskey, stepUpWithPasskey } from "@counterfoil/browser/passkeys";
import type { Passkey } from "@counterfoil/browser/passkeys";
import { createServerSessions } from "@counterfoil/browser/server";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => {};

const options: Options = { authority: "/auth", audience: "orders", watch: true, origins: ["https://api.example"], onStepUp: ({ maxAge, acrValues }: Challenge) => maxAge > 0 && acrValues.length === 0 };
const session: BrowserSession = createSession(options);
same<Awaited<ReturnType<typeof session.getToken>>, string>(true);
same<typeof session.fetch extends typeof fetch ? true : false, true>(true);
same<State["status"], "starting" | "signed-in" | "refreshing-later" | "ended" | "signed-out">(true);

const stop: () => void = session.onChange((state) => {
  switch (state.status) {
    case "signed-in":
      same<typeof state.session, Session>(true);
      return;
    case "ended":
      same<typeof state.code, EndCode>(true);
      same<typeof state.reason, string | undefined>(true);
      same<typeof state.endedAt, number | undefined>(true);
      return;
    case "refreshing-later":
      same<typeof state.code, Code>(true);
      same<typeof state.session, Session | undefined>(true);
      return;
    case "starting":
    case "signed-out":
      // @ts-expect-error there is none
      void state.session;
      return;
    default:
      same<typeof state, never>(true);
  }
});
stop();

try {
  await session.signIn({ email: "a", password: "b" });
  await session.signOut("others");
  same<Awaited<ReturnType<typeof session.devices.list>>, Session[]>(true);
  same<Awaited<ReturnType<typeof signInWithPasskey>>, Session>(true);
  same<Awaited<ReturnType<typeof addPasskey>>, Passkey>(true);
  same<Awaited<ReturnType<typeof stepUpWithPasskey>>, Session | undefined>(true);
  await signInWithPasskey(session, { autofill: true, signal: AbortSignal.timeout(1000) });
  await signUpWithPasskey(session, { email: "a" });
  const last: number | undefined = (await listPasskeys(session))[0]?.lastUsedAt;
  void last;
} catch (error) {
  if (error instanceof CounterfoilError) {
    same<typeof error.code, Code>(true);
    const wait: number | undefined = error.retryAfter;
    void wait;
  }
}

const sessionOf = createServerSessions({ authority: "http://127.0.0.1:8700/v1/auth" });
same<Awaited<ReturnType<ReturnType<typeof sessionOf>["state"]>>, State>(true);
sessionOf(new Request("https://app.example"));
sessionOf({ headers: { cookie: "a=b", "set-cookie": ["x"] } });

// @ts-expect-error no such sign-out
void session.signOut("everything");
// @ts-expect-error a session does not change
session.state = { status: "signed-out" };
// @ts-expect-error no such option
createSession({ storage: "local" });
// @ts-expect-error the authority's address is required
createServerSessions({});
