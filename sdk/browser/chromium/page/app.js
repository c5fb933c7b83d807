// A small application: it says who is signed in, or why nobody is, and asks for the password where a route wants it anew.
// Options of the session come in the address, ?options={…}.
globalThis.startShop = ({ createSession }) => {
  const who = document.querySelector("#who");
  const form = document.querySelector("#again");
  globalThis.states = []; // what onChange told
  globalThis.challenges = [];

  const onStepUp = (challenge) =>
    new Promise((done) => {
      challenges.push(challenge);
      form.hidden = false;
      form.onsubmit = async (event) => {
        event.preventDefault();
        const password = form.querySelector("input").value;
        form.hidden = true;
        done(await session.stepUp({ password }));
      };
      form.querySelector("[value=no]").onclick = () => {
        form.hidden = true;
        done(false);
      };
    });

  const options = JSON.parse(new URLSearchParams(location.search).get("options") ?? "{}");
  const session = (globalThis.session = createSession({ ...options, onStepUp }));
  const show = (state) => {
    who.textContent =
      state.status === "signed-in" ? `signed in as ${state.session.subject}`
      : state.status === "refreshing-later" ? `trying again: ${state.code}`
      : state.status === "ended" ? `signed out: ${state.reason ?? state.code}`
      : state.status === "signed-out" ? "nobody is signed in"
      : "one moment";
  };
  show(session.state);
  session.onChange((state) => {
    states.push({ ...state, at: Date.now() });
    show(state);
  });
};
