// Compiled, never run: what the declarations promise to users.
import express from "express";
import { fastify } from "fastify";
import { ConfigError, CounterfoilError, claimsOf, createVerifier, optionalClaimsOf, problem, setClaims, watch } from "@counterfoil/node";
import type { Algorithm, Claims, Code, Rules, Verifier, VerifierOptions, Watch } from "@counterfoil/node";
import * as forExpress from "@counterfoil/node/express";
import * as forFastify from "@counterfoil/node/fastify";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const same = <A, B>(_: Same<A, B>): void => {};

const options: VerifierOptions = { issuer: "https://app.example", audience: "orders", algorithms: ["ES256"], cacheTokens: 100_000 };
const verifier: Verifier = await createVerifier(options);
same<Awaited<ReturnType<typeof verifier.check>>, Claims>(true);
same<Claims["roles"], readonly string[]>(true);
same<Claims["authTime"], number | undefined>(true);
same<Algorithm, "ES256" | "EdDSA" | "RS256" | "PS256">(true);
const age: number | undefined = verifier.feed?.age;

const rules: Rules = { maxTokenAge: 30, maxAuthAge: 600, maxFeedAge: 0.5, role: ["admin"], scope: "orders:read", live: true, cookie: true, refreshWhenOld: true, noDegraded: true };
const app = express();
app.use(forExpress.optionalToken(verifier));
app.get("/orders/:id", forExpress.requireToken(verifier, rules), (req, res) => {
  const id: string | string[] | undefined = req.params["id"];
  res.json({ id, subject: claimsOf(req).subject, maybe: optionalClaimsOf(req)?.epoch, age });
});

app.get("/events", forExpress.requireToken(verifier), (req, res) => {
  const watched: Watch = forExpress.watch(req);
  const { signal, renew, stop } = watched;
  same<typeof signal, AbortSignal>(true);
  same<ReturnType<typeof renew>, Promise<Claims>>(true);
  res.on("close", stop);
  signal.addEventListener("abort", () => res.end(String((signal.reason as CounterfoilError).code)));
  void renew("a fresh one", { role: "admin" });
  void watch(watched.claims).claims.subject;
});
const figures: number[] = [verifier.watches, verifier.feed?.lag ?? 0];
void figures;

const server = fastify();
server.addHook("onRequest", forFastify.requireToken(verifier));
server.get("/orders", { onRequest: forFastify.requireToken(verifier, { scope: ["a", "b"] }) }, async (request) => claimsOf(request).sessionId);
server.get("/both", { onRequest: [forFastify.optionalToken(verifier), forFastify.requireToken(verifier)] }, async (request) => forFastify.claimsOf(request).payload["plan"]);
server.get("/events", async (request) => forFastify.watch(request).signal.aborted);

try {
  setClaims({}, await verifier.requestChecker(rules)({ method: "GET", rawHeaders: [] }));
} catch (error) {
  if (error instanceof CounterfoilError) {
    same<typeof error.code, Code>(true);
    const text: string = problem(error).body;
    const codes: Code[] = ["token_stale", error.code];
    void [text, codes];
  } else if (error instanceof ConfigError) {
    const field: string = error.field;
    void field;
  }
}

// @ts-expect-error the issuer is required
void createVerifier({ audience: "orders" });
// @ts-expect-error no such algorithm
void createVerifier({ issuer: "https://app.example", audience: "orders", algorithms: ["HS256"] });
// @ts-expect-error no such rule
forExpress.requireToken(verifier, { roles: "admin" });
// @ts-expect-error claims do not change
(await verifier.check("x")).roles.push("admin");
// @ts-expect-error it is made by createVerifier only
void new Verifier({});
// @ts-expect-error the verifier alone says why a watch ends
watch({}).claims = await verifier.check("x");
// @ts-expect-error what is for the package itself is not declared
verifier.lookAgain();
