"use strict";
// All text goes into the page as text nodes; nothing is ever read as markup.

const state = { me: null, application: null, chat: null, stream: null, numbers: new Set(), oldest: null };

// A message that was sent and not answered is sent again with the same key: it can't be there twice. Not once its sender
// has left: it would be sent as the user who is here by then.
async function surely(path, content) {
  const me = state.me;
  const key = crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2) + Date.now();
  for (let attempt = 0; ; attempt++) {
    try {
      return await call("POST", path, content, { "Idempotency-Key": key });
    } catch (error) {
      if (attempt >= 4 || !(error.status === 0 || error.status === 503)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 300 * 2 ** attempt));
      if (state.me !== me) throw error;
    }
  }
}

function el(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in element) element[key] = value; else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function notice(text) { $("notice").textContent = text; }

function on(id, event, work) {
  $(id).addEventListener(event, async (happened) => {
    happened.preventDefault();
    const me = state.me;
    try {
      notice("");
      await work(happened);
    } catch (error) {
      if (state.me !== me) return; // who did this has left, and it concerns nobody else
      if (error.status === 401 && me) leave(); else notice(error.message);
    }
  });
}

// Entering and leaving -------------------------------------------------------------------------------------------------

on("enter", "change", () => {
  const login = $("enter").elements.way.value === "login";
  $("name-field").hidden = login;
  $("enter").elements.name.required = !login;
  $("lost").hidden = !login;
  $("enter").querySelector("button").textContent = login ? "Log in" : "Sign up";
});

$("enter").addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = $("enter").elements;
  const fields = { email: form.email.value, password: form.password.value };
  $("enter-error").textContent = "";
  try {
    if (form.way.value === "login") await call("POST", "/auth/login", fields);
    else await call("POST", "/auth/register", { ...fields, name: form.name.value });
    $("enter").reset();
    $("enter").dispatchEvent(new Event("change"));
    await enter();
  } catch (error) {
    $("enter-error").textContent = error.message;
  }
});

on("logout", "click", async () => { await call("DELETE", "/auth/logout"); leave(); });

// Nothing of the one who leaves stays in the page.
function leave() {
  closeChat();
  drafts.clear();
  Object.assign(state, { me: null, application: null });
  for (const form of $("chat").querySelectorAll("form")) form.reset();
  for (const id of ["applications", "members", "chats", "title", "messages"]) $(id).replaceChildren();
  show("landing");
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
  show("chat");
  await applications();
}

function show(view) {
  for (const section of ["landing", "chat", "operator"]) $(section).hidden = section !== view;
  const inside = view !== "landing";
  $("nav").hidden = $("logout").hidden = !inside;
  if (!inside) $("who").textContent = "";
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === view));
  if (view === "operator") watch();
}

for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => show(button.dataset.view));

// Applications and chats ------------------------------------------------------------------------------------------------

async function applications(chosen) {
  const found = await call("GET", "/applications?limit=100");
  $("applications").replaceChildren(...found.map((each) => el("option", { value: each.token }, each.name)));
  $("more").open = found.length === 0;
  if (chosen) $("applications").value = chosen;
  await choose($("applications").value || null);
}

async function choose(token) {
  state.application = token;
  $("invite").hidden = $("add-chat").hidden = token === null;
  closeChat();
  await Promise.all([chats(), members()]);
}

async function chats() {
  const application = state.application;
  const found = application ? await call("GET", `/applications/${application}/chats?limit=100`) : [];
  if (application !== state.application) return;
  $("chats").replaceChildren(...found.map((chat) => {
    const title = chat.title || `Chat ${chat.chatNumber}`;
    const button = el("button", { type: "button" }, el("span", {}, title), el("small", { ariaLabel: `${chat.messagesCount} messages` }, String(chat.messagesCount)));
    button.setAttribute("aria-current", String(state.chat === chat.chatNumber));
    button.addEventListener("click", () => open(chat.chatNumber, title).catch((error) => notice(error.message)));
    return el("li", {}, button);
  }));
}

async function members(page = 1) {
  const application = state.application;
  const found = application ? await call("GET", `/applications/${application}/members?page=${page}&limit=100`) : [];
  if (application !== state.application) return;
  const lines = found.map((each) => el("li", {}, `${[each.name, each.email].filter(Boolean).join(", ")} (${each.role})`));
  if (page === 1) $("members").replaceChildren(...lines); else $("members").append(...lines);
  $("more-members").hidden = found.length < 100;
}

on("more-members", "click", () => members(1 + $("members").children.length / 100));

on("applications", "change", () => choose($("applications").value));
on("add-application", "submit", async (event) => {
  const made = await call("POST", "/applications", { name: event.target.elements.name.value });
  event.target.reset();
  await applications(made.token);
});
on("invite", "submit", async (event) => {
  await call("POST", `/applications/${state.application}/members`, { email: event.target.elements.email.value, role: "member" });
  event.target.reset();
  await members();
});
on("add-chat", "submit", async (event) => {
  const title = event.target.elements.title.value;
  const made = await call("POST", `/applications/${state.application}/chats`, { title });
  event.target.reset();
  await open(made.chatNumber, title);
});

// One chat --------------------------------------------------------------------------------------------------------------

const path = () => `/applications/${state.application}/chats/${state.chat}/messages`;

// What was typed and not sent: a text for each chat, by its path. In memory alone, and gone when its writer leaves.
const drafts = new Map();

function draft(chat, text) {
  drafts.set(chat, text);
  if (chat === path()) $("body").value = text;
}

function closeStream() {
  if (state.stream) state.stream.close();
  state.stream = null;
}

function closeChat() {
  closeStream();
  state.chat = null;
  $("thread").hidden = true;
  $("no-chat").hidden = false;
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
  state.searching = false;
  await Promise.all([latest(), chats()]);
  $("body").focus();
}

async function latest() {
  const chat = path(), found = await call("GET", `${chat}?limit=50`);
  if (chat !== path()) return; // another is open by now
  state.numbers.clear();
  $("messages").replaceChildren();
  for (const message of found.reverse()) add(message);
  state.oldest = found.length ? found[0].messageNumber : null;
  $("older").hidden = found.length < 50;
  $("scroll").scrollTop = $("scroll").scrollHeight;
  listen(found.length ? found[found.length - 1].messageNumber : 0);
}

let counting;

function listen(after) {
  closeStream();
  const stream = state.stream = new EventSource(`/api/v1${path()}/stream?after=${after}`);
  stream.addEventListener("message", (event) => {
    clearTimeout(counting);
    counting = setTimeout(() => chats().catch((error) => notice(error.message)), 1000);
    if (state.searching) return;
    const box = $("scroll"), atEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
    add(JSON.parse(event.data));
    if (atEnd) box.scrollTop = box.scrollHeight;
  });
  stream.addEventListener("edited", (event) => {
    const message = JSON.parse(event.data), shown = $("m" + message.messageNumber);
    if (shown) shown.replaceWith(item(message));
  });
  stream.addEventListener("deleted", (event) => {
    const shown = $("m" + JSON.parse(event.data).messageNumber);
    if (shown) shown.remove();
  });
  stream.addEventListener("end", (event) => {
    closeStream();
    const reason = JSON.parse(event.data);
    if (reason.status === 401) leave(); else notice(reason.error); // 401: logged out, in another window or by the server
  });
}

function item(message) {
  const time = new Date(message.createdAt);
  const head = el("header", {}, el("b", {}, message.senderName), el("time", { dateTime: message.createdAt, title: time.toLocaleString() }, time.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })));
  if (message.editedAt) head.append(el("span", {}, "edited"));
  const shown = el("li", { id: "m" + message.messageNumber }, head, el("p", {}, message.body));
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
  if (chat !== path()) return;
  for (const message of found) add(message);
  if (found.length) state.oldest = found[found.length - 1].messageNumber;
  $("older").hidden = found.length < 50;
  box.scrollTop += box.scrollHeight - height;
});

on("send", "submit", async () => {
  const me = state.me, chat = path(), body = $("body").value;
  if (!body.trim()) return;
  draft(chat, "");
  try {
    await surely(chat, { body });
  } catch (error) {
    // Back into its own chat, before what was typed there since.
    if (state.me === me) draft(chat, [body, drafts.get(chat)].filter(Boolean).join("\n"));
    throw error;
  }
});
$("body").addEventListener("input", () => drafts.set(path(), $("body").value));
$("body").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("send").requestSubmit();
  }
});
on("back", "click", closeChat);

let typing;
$("q").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => search().catch((error) => notice(error.message)), 200);
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

// What an operator watches ----------------------------------------------------------------------------------------------

const history = new Map();
let before = null, watching = false, deadShown = 0;

async function watch() {
  if (watching) return;
  watching = true;
  while (!$("operator").hidden) {
    try {
      figures(await call("GET", "/operator"));
      notice("");
    } catch (error) {
      notice(error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  watching = false;
  before = null;
}

const compact = (value) => value >= 1e6 ? (value / 1e6).toFixed(1) + " M" : value >= 1e4 ? (value / 1e3).toFixed(1) + " k" : value.toFixed(value < 10 && value % 1 ? 1 : 0);
const ms = (seconds) => seconds === null ? "–" : seconds === Infinity ? "> 10 s" : seconds < 1 ? (seconds * 1000).toFixed(seconds < .01 ? 1 : 0) + " ms" : seconds.toFixed(1) + " s";

// The least bound that so many of the requests are below, of those between two readings.
function quantile(now, then, share) {
  const counts = now.counts.map((count, at) => count - (then ? then.counts[at] : 0));
  const all = counts.reduce((sum, count) => sum + count, 0);
  if (!all) return null;
  let sum = 0;
  for (const [at, count] of counts.entries()) {
    sum += count;
    if (sum >= share * all) return at < now.bounds.length ? now.bounds[at] : Infinity;
  }
  return null;
}

function merged(reading, wanted) {
  const chosen = reading.requests.filter(wanted);
  const counts = reading.bounds.map((_, at) => chosen.reduce((sum, each) => sum + each.counts[at], 0));
  counts.push(chosen.reduce((sum, each) => sum + each.counts[reading.bounds.length], 0));
  return { bounds: reading.bounds, counts };
}

const total = (requests) => requests.reduce((sum, each) => sum + each.counts.reduce((a, b) => a + b, 0), 0);

function figures(reading) {
  const then = before, seconds = then ? reading.at - then.at : 0;
  before = reading;
  const writes = (each) => each.route === "postMessage", reads = (each) => each.route.startsWith("list");
  const rate = (wanted) => then && seconds ? (total(reading.requests.filter(wanted)) - total(then.requests.filter(wanted))) / seconds : 0;
  const p99 = (wanted) => quantile(merged(reading, wanted), then && merged(then, wanted), .99);
  const figure = (name) => reading.figures[name];
  const change = (name) => then && seconds ? Math.max(0, figure(name) - then.figures[name]) / seconds : 0;
  tile("Messages a second", rate(writes), compact);
  tile("Reads a second", rate(reads), compact);
  tile("P99 of a message", p99(writes), ms);
  tile("P99 of a read", p99(reads), ms);
  tile("Writes waiting", figure("hubbub_queue_depth_messages") ?? figure("hubbub_queue_waiting_commands"), compact);
  tile("Search index lag", figure("hubbub_index_lag_seconds") ?? null, ms);
  tile("CPU, cores", change("process_cpu_seconds_total"), (value) => value.toFixed(2));
  tile("Memory", figure("process_resident_memory_bytes"), (value) => compact(value) + "B");
  tile("Connections", figure("hubbub_connections"), compact);
  tile("Streams", figure("hubbub_streams"), compact);
  routes(reading, then, seconds);
  $("errors").replaceChildren(...(reading.errors.length ? reading.errors.map((line) => el("li", {}, line)) : [el("li", {}, "None since the process began.")]));
  if ((figure("hubbub_dead_letters") || 0) !== deadShown) deadLetters(figure("hubbub_dead_letters")).catch((error) => notice(error.message));
}

// Looking at dead letters takes them off the queue for a moment, so it is done when their number has changed.
async function deadLetters(count) {
  deadShown = count;
  const letters = count ? await call("GET", "/operator/dead") : [];
  $("no-dead").hidden = letters.length > 0;
  $("dead-box").hidden = letters.length === 0;
  $("dead").replaceChildren(...letters.map((letter) => {
    const button = el("button", { type: "button" }, "Retry");
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await call("POST", "/operator/retry", { number: letter.number });
        deadShown = null;
      } catch (error) {
        notice(error.message);
      }
    });
    return el("tr", {}, el("td", {}, letter.at), el("td", {}, letter.what), el("td", {}, letter.reason), el("td", {}, button));
  }));
}

function tile(title, value, words) {
  let shown = history.get(title);
  if (!shown) {
    const number = el("dd", {}, "–");
    const box = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
    box.setAttribute("viewBox", "0 0 100 30");
    box.setAttribute("preserveAspectRatio", "none");
    box.setAttribute("aria-hidden", "true");
    box.append(line);
    $("tiles").append(el("div", { className: "tile" }, el("dl", {}, el("dt", {}, title), number), box));
    shown = { number, line, values: [] };
    history.set(title, shown);
  }
  shown.number.textContent = value === null || value === undefined ? "–" : words(value);
  shown.values.push(Number.isFinite(value) ? value : 0);
  if (shown.values.length > 60) shown.values.shift();
  const most = Math.max(...shown.values, 1e-9);
  shown.line.setAttribute("points", shown.values.map((each, at) => `${(100 * (60 - shown.values.length + at)) / 59},${29 - (28 * each) / most}`).join(" "));
}

function routes(reading, then, seconds) {
  const names = [...new Set(reading.requests.map((each) => each.route))].sort();
  $("routes").replaceChildren(...names.map((name) => {
    const of = (each) => each.route === name;
    const all = total(reading.requests.filter(of));
    const recent = then && seconds ? (all - total(then.requests.filter(of))) / seconds : 0;
    const refused = total(reading.requests.filter((each) => of(each) && Number(each.status) >= 400));
    return el("tr", {}, el("th", { scope: "row" }, name), ...[compact(recent), compact(all), compact(refused), ms(quantile(merged(reading, of), null, .99))].map((text) => el("td", {}, text)));
  }));
}

enter();
