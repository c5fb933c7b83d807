// The page: two devices, the switches, the sign-in form.

import { call } from "./call.js";
import { Device } from "./device.js";
import { Log } from "./log.js";
import { Ticket } from "./ticket.js";
import { meaning, took } from "./words.js";

const $ = (id) => document.getElementById(id);
const log = new Log();
const browser = new Device("This browser", "/v1/auth", log);
const phone = new Device("Second device", "/phone/v1/auth", log);
const devices = [browser, phone];
let user = null; // of the browser's session, as the directory has it
let authorityRuns = true;

// busy keeps a button from being pressed twice.
async function busy(button, work) {
  if (button.dataset.busy !== undefined) return;
  button.dataset.busy = "";
  button.setAttribute("aria-busy", "true");
  try {
    await work();
  } finally {
    delete button.dataset.busy;
    button.removeAttribute("aria-busy");
    show();
  }
}

function done(step) {
  const item = document.querySelector(`[data-step="${step}"]`);
  item.dataset.done = "";
  item.querySelector(".unseen").textContent = " (done)";
}

// --- devices

const tickets = devices.map((device, i) => {
  const section = $(["browser", "phone"][i]);
  const article = $("device-template").content.cloneNode(true).firstElementChild;
  section.append(article);
  const ticket = new Ticket(device, article);
  device.addEventListener("change", show);
  article.querySelector('[data-do="refresh"]').addEventListener("click", (e) => busy(e.currentTarget, () => device.refresh("by hand")));
  article.querySelector('[data-do="sign-out"]').addEventListener("click", (e) => busy(e.currentTarget, () => device.signOut("this")));
  const again = article.querySelector('[data-do="again"]');
  again.textContent = device === browser ? "Sign in again" : "Open another";
  again.addEventListener("click", (e) => {
    if (device === phone) {
      busy(e.currentTarget, openPhone);
      return;
    }
    device.forget();
    form.elements.email.focus();
  });
  for (const button of article.querySelectorAll("[data-call]")) {
    button.addEventListener("click", () => busy(button, async () => {
      const route = button.dataset.call;
      const { answer, line } = await device.send(route === "payments" ? "POST" : "GET", `/api/${route}`);
      ticket.outcome(line);
      if (route === "orders" && answer.ok) done("call");
      if (route === "payments" && answer.ok) done("pay");
      if (route === "report" && answer.ok) done("role");
      if (route === "balance" && answer.ok && answer.asked > 0) done("feed");
      if (route === "orders" && answer.ok && !authorityRuns) done("authority");
    }));
  }
  return ticket;
});

// --- sign-in

const form = $("signin-template").content.cloneNode(true).firstElementChild;
$("browser").querySelector(".stub").append(form);

form.addEventListener("submit", (e) => {
  e.preventDefault();
  const button = e.submitter ?? form.querySelector(".main");
  busy(button, async () => {
    const fault = form.querySelector(".fault");
    fault.textContent = "";
    const [email, password] = [form.elements.email.value, form.elements.password.value];
    const answer = await call("POST", `/v1/auth/${button.value}`, { body: { email, password } });
    log.authority(browser.name, answer);
    if (!answer.ok) {
      fault.textContent = answer.body.detail ?? meaning(answer.code);
      return;
    }
    browser.start(answer);
    done("sign-in");
    await readUser();
    $("browser").querySelector('[data-call="orders"]').focus();
  });
});

async function readUser() {
  const answer = await call("GET", `/demo/users/${encodeURIComponent(browser.session.subject)}`);
  if (answer.ok) user = answer.body;
}

// --- switches

async function openPhone() {
  const answer = await call("POST", "/demo/phone", { body: { subject: browser.session.subject } });
  log.authority(phone.name, { ...answer, path: "/v1/sessions" }, "by the backend");
  if (!answer.ok) return;
  phone.forget();
  phone.start(answer);
}

$("open-phone").addEventListener("click", (e) => busy(e.currentTarget, openPhone));

$("sign-out-others").addEventListener("click", (e) => busy(e.currentTarget, async () => {
  if (await browser.signOut("others")) {
    if (phone.live) done("others");
    await hear(phone, browser);
  }
}));

$("sign-out-all").addEventListener("click", (e) => busy(e.currentTarget, async () => {
  if (await browser.signOut("all")) await hear(phone, browser);
}));

// hear lets the other device find out now, not at its next refresh. The orders
// service hears of it by itself.
async function hear(device, from) {
  if (!device.live || device.session.subject !== from.session.subject) return;
  device.changed(from.changedAt);
  await device.refresh("at its next refresh, made now");
}

$("role").addEventListener("click", (e) => busy(e.currentTarget, async () => {
  const roles = user.roles.includes("admin") ? [] : ["admin"];
  const answer = await call("POST", `/demo/users/${encodeURIComponent(user.id)}/roles`, { body: { roles } });
  log.authority("Operator", { ...answer, method: "PATCH", path: "/v1/users/…" }, roles.length ? "gives admin" : "takes admin");
  if (!answer.ok) return;
  user = answer.body;
  for (const device of devices) {
    if (device.session?.subject !== user.id) continue;
    device.changed(answer.beganAt);
    device.rightsChanged();
  }
}));

$("authority").addEventListener("click", (e) => busy(e.currentTarget, async () => {
  const running = !authorityRuns;
  const answer = await call("POST", "/demo/authority", { body: { running } });
  if (!answer.ok) {
    log.event(answer.body.detail ?? "The authority did not start.", "revoked");
    return;
  }
  showProcesses(answer.body);
  log.event(running ? "Authority started" : "Authority stopped", "valid");
  for (const device of devices) if (running && device.state === "later") await device.refresh("the authority is back");
  if (running && browser.live && !user) await readUser();
}));

function showProcesses({ authority, orders }) {
  authorityRuns = authority.pid !== 0;
  const mark = $("authority-mark");
  mark.dataset.mark = authorityRuns ? "valid" : "stale";
  mark.textContent = authorityRuns ? "running" : "stopped";
  $("authority-where").textContent = authorityRuns ? `${authority.address}, process ${authority.pid}` : authority.address;
  $("authority").textContent = authorityRuns ? "Stop the authority" : "Start the authority";
  $("orders-where").textContent = `${orders.address}, process ${orders.pid}`;
}

// --- the feed of the orders service

const feedEvery = 400; // milliseconds between two looks
let feedCut = false;

function showFeed({ connected, cut, age_ms: age }) {
  feedCut = cut;
  const mark = $("feed-mark");
  mark.dataset.mark = connected ? "valid" : "stale";
  mark.textContent = cut ? "cut" : connected ? "followed" : "cut off";
  $("feed-age").textContent = age < 0 ? "an unknown time" : took(age);
  $("feed").textContent = cut ? "Restore the feed" : "Cut the feed";
  $("feed").disabled = false;
}

async function lookAtFeed() {
  if (!document.hidden) {
    const answer = await call("GET", "/api/feed");
    if (answer.ok) showFeed(answer.body);
  }
  setTimeout(lookAtFeed, feedEvery);
}

$("feed").addEventListener("click", (e) => busy(e.currentTarget, async () => {
  const answer = await call("POST", "/api/feed", { body: { cut: !feedCut } });
  if (!answer.ok) return;
  showFeed(answer.body);
  log.event(feedCut ? "Feed cut: orders hears nothing" : "Feed restored", "valid");
}));

// --- what shows, and what can be pressed

function show() {
  const isAdmin = user?.roles.includes("admin") ?? false;
  form.hidden = browser.state !== "out";
  devices.forEach((device, i) => {
    const root = $(["browser", "phone"][i]);
    root.querySelector(".device").hidden = device === phone && phone.state === "out";
    root.querySelector('[data-do="refresh"]').hidden = !device.live;
    root.querySelector('[data-do="sign-out"]').hidden = !device.live;
    const again = root.querySelector('[data-do="again"]');
    again.hidden = device.state !== "ended";
    again.disabled = device === phone && !browser.live;
    root.querySelector(".calls").hidden = !device.holdsToken || device.state === "out";
    tickets[i].field("who").textContent = device.state !== "out" && device.session?.subject === user?.id && user ? user.email : "";
  });
  const last = devices.map((device) => device.heard).filter(Boolean).at(-1);
  if (last) $("feed-heard").textContent = `The last change was heard after ${took(last.ms)}.`;
  $("phone-vacant").hidden = phone.state !== "out";
  $("open-phone").disabled = !browser.live;
  $("sign-out-others").disabled = $("sign-out-all").disabled = !browser.live;
  $("role").disabled = !user;
  $("role").textContent = isAdmin ? "Take the role" : "Give the role";
  $("role-now").textContent = !user ? "Nobody is signed in." : isAdmin ? "The operator has given it." : "The operator has not given it.";
}

async function begin() {
  tickets.forEach((ticket) => ticket.show());
  show();
  const state = await call("GET", "/demo/state");
  if (state.ok) showProcesses(state.body);
  if (state.body.session) await browser.refresh("on load");
  if (browser.live) {
    done("sign-in");
    await readUser();
  }
  // The page's server kept the second device's session through the reload.
  if (state.body.phone) await phone.refresh("on load");
  show();
  lookAtFeed();
  setInterval(() => tickets.forEach((ticket) => ticket.tick()), 250);
}

begin();
