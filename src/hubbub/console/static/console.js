"use strict";
// All text goes into the page as text nodes; nothing is ever read as markup.

const state = { me: null, application: null, chat: null, stream: null, numbers: new Set(), oldest: null };

function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value; else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function notice(text) { $("notice").textContent = text; }

// A form that is sent again while it is at work, as by a double click, does nothing more.
function on(id, event, work) {
  let busy = false;
  $(id).addEventListener(event, async (happened) => {
    happened.preventDefault();
    if (busy && event === "submit") return;
    const me = state.me;
    busy = true;
    try {
      notice("");
      await work(happened);
    } catch (error) {
      failed(error, me);
    } finally {
      busy = false;
    }
  });
}

function failed(error, me = state.me) {
  if (state.me !== me) return; // who did this has left, and it concerns nobody else
  if (error.status === 401 && me) expire(); else notice(error.message);
}

// Entering and leaving -------------------------------------------------------------------------------------------------

function chooseWay() {
  const login = $("enter").elements.way.value === "login";
  $("name-field").hidden = login;
  $("enter").elements.name.required = !login;
  $("lost").hidden = !login;
  $("enter").elements.password.autocomplete = login ? "current-password" : "new-password";
  $("enter").querySelector("button").textContent = login ? "Log in" : "Sign up";
}
on("enter", "change", chooseWay);
addEventListener("pageshow", chooseWay); // a browser that goes back fills in what was chosen

on("enter", "submit", async () => {
  const form = $("enter").elements;
  const fields = { email: form.email.value, password: form.password.value };
  $("enter-error").textContent = "";
  try {
    if (form.way.value === "login") await call("POST", "/auth/login", fields);
    else await call("POST", "/auth/register", { ...fields, name: form.name.value });
  } catch (error) {
    $("enter-error").textContent = error.message;
    return;
  }
  $("enter").reset();
  chooseWay();
  await enter();
});

on("logout", "click", async () => { await call("DELETE", "/auth/logout"); leave(); });

// What a session's end interrupts goes on where it was, if the same user logs in next.
function expire() {
  const at = location.hash;
  leave(unfinished());
  history.replaceState(null, "", at || location.pathname);
  $("enter").elements.way.value = "login";
  chooseWay();
  $("enter").elements.email.focus();
  notice("Your session has ended. Log in again to go on; what you typed is kept until then.");
}

// Asks who is here, as that may have changed in another tab, or while this one was not looked at.
async function check(logout) {
  let now;
  try {
    now = (await call("GET", "/auth/me")).user;
  } catch (error) {
    if (error.status !== 401) return;
  }
  if (now && now.id === state.me?.id) return;
  if (now) {
    notice("");
    if (state.me) leave();
    await enter();
  } else if (logout) {
    kept = null;
    if (!state.me) return;
    leave();
    notice("You have logged out in another tab.");
  } else if (state.me) expire();
}
tabs.addEventListener("message", ({ data }) => check(data === "/auth/logout"));
addEventListener("pageshow", (event) => { if (event.persisted) check(); });
addEventListener("visibilitychange", () => { if (!document.hidden) check(); });

// Nothing of the one who leaves stays in the page, but ``saved`` for when the same user is back.
function leave(saved = null) {
  const left = state.me;
  closeChat();
  forget();
  kept = saved;
  Object.assign(state, { me: null, application: null });
  for (const form of $("chat").querySelectorAll("form")) form.reset();
  for (const id of ["applications", "members", "chats", "title", "messages"]) $(id).replaceChildren();
  forgetFigures();
  show("landing");
  if (!left) return;
  history.replaceState(null, "", location.pathname);
  $("main").focus();
}

async function enter() {
  try {
    state.me = (await call("GET", "/auth/me")).user;
  } catch (error) {
    if (error.status !== 401) notice(error.message);
    leave();
    return;
  }
  $("who").textContent = state.me.name;
  $("to-operator").hidden = !state.me.operator;
  restore();
  const entered = !$("landing").hidden;
  show("chat");
  if (entered) $("main").focus(); // the form that had it is gone
  try {
    await applications(location.hash.slice(1).split("/")[0]);
    const hash = location.hash;
    await go();
    if (location.hash === hash) record(true); // the reader may have gone on by now
  } catch (error) {
    failed(error);
  }
}

function show(view) {
  for (const section of ["landing", "chat", "operator"]) $(section).hidden = section !== view;
  const inside = view !== "landing";
  $("nav").hidden = $("logout").hidden = !inside;
  if (!inside) $("who").textContent = "";
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === view));
  if (view === "operator") watch();
}

for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => {
  show(button.dataset.view);
  record();
});

// Applications and chats ------------------------------------------------------------------------------------------------

// A list's first pages, or all of them.
async function pages(path, most = Infinity) {
  const found = [];
  for (let page = 1; page <= most; page++) {
    const more = await call("GET", `${path}?page=${page}&limit=100`);
    found.push(...more);
    if (more.length < 100) break;
  }
  return found;
}

async function applications(chosen) {
  const me = state.me, found = await pages("/applications");
  if (state.me !== me) return; // another user is here by now
  $("applications").replaceChildren(...found.map((each) => el("option", { value: each.token, dir: "auto" }, each.name)));
  $("more").open = found.length === 0;
  if (found.some((each) => each.token === chosen)) $("applications").value = chosen;
  await choose($("applications").value || null);
}

async function choose(token) {
  state.application = token;
  $("invite").hidden = $("add-chat").hidden = token === null;
  closeChat();
  for (const id of ["chats", "members"]) $(id).replaceChildren(); // another application's
  shownPages = 1;
  $("no-chats").textContent = token === null ? "Create an application; its chats are listed here." : "";
  await Promise.all([chats(), members()]);
}

let shownPages = 1; // of the list of chats

const titleOf = (chat) => chat.title || `Chat ${chat.chatNumber}`;

async function chats() {
  const application = state.application, most = shownPages;
  if (!application) return;
  const found = await pages(`/applications/${application}/chats`, most);
  if (application !== state.application || most !== shownPages) return;
  $("no-chats").textContent = found.length ? "" : "None yet. Open the first one.";
  $("more-chats").hidden = found.length < 100 * most;
  const number = document.activeElement.closest("#chats li")?.dataset.number;
  $("chats").replaceChildren(...found.map((chat) => {
    const title = titleOf(chat);
    const button = el("button", { type: "button" }, el("span", { dir: "auto", title }, title), el("small", { ariaLabel: `${chat.messagesCount} ${chat.messagesCount === 1 ? "message" : "messages"}` }, String(chat.messagesCount)));
    button.setAttribute("aria-current", String(state.chat === chat.chatNumber));
    button.addEventListener("click", () => {
      notice("");
      open(chat.chatNumber, title).catch(failed);
      record();
    });
    const shown = el("li", {}, button);
    shown.dataset.number = chat.chatNumber;
    return shown;
  }));
  if (number) focusChat(number);
}

function focusChat(number) {
  $("chats").querySelector(`[data-number="${number}"] button`)?.focus({ preventScroll: true });
}

async function members(page = 1) {
  const application = state.application;
  const found = application ? await call("GET", `/applications/${application}/members?page=${page}&limit=100`) : [];
  if (application !== state.application) return;
  const lines = found.map((each) => el("li", {}, el("bdi", {}, each.name), `${each.email ? ", " + each.email : ""} (${each.role})`));
  if (page === 1) $("members").replaceChildren(...lines); else $("members").append(...lines);
  $("more-members").hidden = found.length < 100;
}

on("more-chats", "click", async () => {
  const number = $("chats").children.length;
  shownPages += 1;
  await chats();
  $("chats").children[number]?.querySelector("button").focus();
});
on("more-members", "click", () => members(1 + $("members").children.length / 100));

on("applications", "change", () => {
  const done = choose($("applications").value);
  record();
  return done;
});
on("add-application", "submit", async (event) => {
  const made = await call("POST", "/applications", { name: event.target.elements.name.value });
  event.target.reset();
  await applications(made.token);
  record();
  $("add-chat").elements.title.focus(); // the form that had it is folded away
});
on("invite", "submit", async (event) => {
  await call("POST", `/applications/${state.application}/members`, { email: event.target.elements.email.value, role: "member" });
  event.target.reset();
  await members();
});
on("add-chat", "submit", async (event) => {
  const title = event.target.elements.title.value, application = state.application;
  const made = await call("POST", `/applications/${application}/chats`, { title });
  if (application !== state.application) return; // another is chosen by now
  event.target.reset();
  const done = open(made.chatNumber, title);
  record();
  await done;
});

// One chat --------------------------------------------------------------------------------------------------------------

const path = () => `/applications/${state.application}/chats/${state.chat}/messages`;

function closeChat() {
  closeStream();
  state.chat = null;
  $("thread").hidden = true;
  $("no-chat").hidden = state.application === null;
  $("chat").classList.remove("open");
}

async function open(number, title) {
  closeStream();
  state.chat = number;
  $("title").textContent = title;
  $("thread").hidden = false;
  $("no-chat").hidden = true;
  $("chat").classList.add("open");
  $("q").value = "";
  $("body").value = drafts.get(path()) || "";
  tellWaiting();
  state.searching = false;
  $("messages").replaceChildren(); // another chat's
  $("older").hidden = true;
  $("body").focus();
  await Promise.all([latest(), chats()]);
}

async function latest() {
  const chat = path(), found = await call("GET", `${chat}?limit=50`);
  if (chat !== path() || state.searching) return; // another is open, or a search is shown, by now
  state.numbers.clear();
  $("messages").replaceChildren();
  for (const message of found.reverse()) add(message);
  state.oldest = found.length ? found[0].messageNumber : null;
  $("older").hidden = found.length < 50;
  toEnd();
  listen(found.length ? found[found.length - 1].messageNumber : 0);
}

function isAtEnd() {
  const box = $("scroll");
  return box.scrollHeight - box.scrollTop - box.clientHeight < 80;
}

function toEnd() { $("scroll").scrollTop = $("scroll").scrollHeight; }

// When the box shrinks, as when a phone shows its keyboard, the last message stays in sight.
let wasAtEnd = true;
$("scroll").addEventListener("scroll", () => { wasAtEnd = isAtEnd(); });
new ResizeObserver(() => { if (wasAtEnd) toEnd(); }).observe($("scroll"));

// The day too, unless it is today.
function shortTime(time) {
  return time.toDateString() === new Date().toDateString() ? time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }) : time.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

function item(message) {
  const time = new Date(message.createdAt);
  const head = el("header", {}, el("b", { dir: "auto", title: message.senderName }, message.senderName), el("time", { dateTime: message.createdAt, title: time.toLocaleString() }, shortTime(time)));
  if (message.editedAt) head.append(el("span", {}, "edited"));
  const shown = el("li", { id: "m" + message.messageNumber }, head, el("p", { dir: "auto" }, message.body));
  shown.dataset.edited = String(message.editedAt);
  if (message.senderId === state.me.id) shown.className = "mine";
  return shown;
}

function add(message) {
  if (state.numbers.has(message.messageNumber)) return;
  state.numbers.add(message.messageNumber);
  const later = [...$("messages").children].reverse().find((each) => Number(each.id.slice(1)) < message.messageNumber);
  if (later) later.after(item(message)); else $("messages").prepend(item(message));
}

on("older", "click", async () => {
  const box = $("scroll"), height = box.scrollHeight, chat = path();
  const found = await call("GET", `${chat}?limit=50&before=${state.oldest}`);
  if (chat !== path() || state.searching) return;
  for (const message of found) add(message);
  if (found.length) state.oldest = found[found.length - 1].messageNumber;
  if (found.length < 50) box.focus({ preventScroll: true });
  $("older").hidden = found.length < 50;
  box.scrollTop += box.scrollHeight - height;
});

on("send", "submit", () => {
  const body = $("body").value;
  if (!body.trim()) return;
  send(path(), body);
  if (!state.searching) return;
  $("q").value = ""; // it is not among the messages found
  search().catch(failed);
});
$("body").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("send").requestSubmit();
  }
});
on("back", "click", () => {
  const number = state.chat;
  closeChat();
  record();
  focusChat(number);
});

let typing;
$("q").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => search().catch(failed), 200);
});
on("search", "submit", () => search());

async function search() {
  if (state.chat === null) return; // closed before the pause in typing was over
  const q = $("q").value, chat = path();
  state.searching = q !== "";
  if (!state.searching) { await latest(); return; }
  const found = await call("GET", `${path()}/search?limit=50&q=${encodeURIComponent(q)}`);
  if (chat !== path() || q !== $("q").value) return;
  $("older").hidden = true;
  const shown = found.length ? found.map(item) : [el("li", {}, "Nothing found.")];
  if (found.truncated) shown.push(el("li", {}, "There may be more, but finding it takes too much work. Search for fewer or longer words."));
  $("messages").replaceChildren(...shown);
  $("scroll").scrollTop = 0;
}

enter();
