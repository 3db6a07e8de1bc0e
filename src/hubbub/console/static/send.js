"use strict";
// What is typed and sent. Nothing that was typed is lost, and nothing is sent twice.

// What was typed and not sent: a text for each chat, by its path. In memory alone, and gone when its writer leaves.
const drafts = new Map();
// Messages on their way, and those that came back unsent as long as the draft begins with them: lists of { body, key }.
const outbox = new Map(), returned = new Map();

// The same of one whose session has ended, for when the same user is back.
let kept = null;

function unfinished() {
  for (const [chat, waiting] of outbox) {
    draft(chat, unsent(chat, waiting));
    returned.set(chat, [...waiting]);
  }
  return { id: state.me.id, drafts: [...drafts], returned: [...returned] };
}

function restore() {
  if (kept && kept.id === state.me.id) {
    for (const [chat, text] of kept.drafts) drafts.set(chat, text);
    for (const [chat, waiting] of kept.returned) returned.set(chat, waiting);
  }
  kept = null;
}

function forget() {
  for (const each of [drafts, outbox, returned]) each.clear();
  tellWaiting();
}

function draft(chat, text) {
  drafts.set(chat, text);
  if (chat === path()) $("body").value = text;
}

const newKey = () => crypto.randomUUID ? crypto.randomUUID() : String(Math.random()).slice(2) + Date.now();

// A text as messages. What came back unsent, and may be there in spite of that, keeps its key: it can't be there twice.
function pieces(chat, text) {
  const found = returned.get(chat) || [];
  const rest = text.slice(found.map((each) => each.body + "\n").join("").length);
  return rest.trim() ? [...found, { body: rest, key: newKey() }] : found;
}

const joined = (messages) => messages.map((each) => each.body).join("\n");

// What came back, and then what was typed since.
const unsent = (chat, waiting) => [joined(waiting), drafts.get(chat)].filter(Boolean).join("\n");

function send(chat, text) {
  const size = [...text].length;
  if (size > 10000) {
    notice(`A message has 10,000 characters at most, and this has ${size.toLocaleString("en")}. Shorten it, or send it in parts.`);
    return;
  }
  const waiting = outbox.get(chat), added = pieces(chat, text);
  returned.delete(chat);
  draft(chat, "");
  if (waiting) waiting.push(...added);
  else {
    const me = state.me;
    outbox.set(chat, added);
    deliver(chat, added).catch((error) => failed(error, me));
  }
}

// One after another, so that they get their numbers in the order in which they were written.
async function deliver(chat, waiting) {
  const me = state.me;
  setTimeout(tellWaiting, 1000, waiting);
  try {
    while (waiting.length) {
      await surely(chat, waiting[0]);
      if (state.me !== me) return; // the rest would be sent as the user who is here by now
      waiting.shift();
    }
  } catch (error) {
    // Back into their own chat, before what was typed there since.
    if (state.me === me) {
      draft(chat, unsent(chat, waiting));
      if (error.status === 0 || error.status >= 500) returned.set(chat, waiting);
    }
    throw error;
  } finally {
    if (outbox.get(chat) === waiting) outbox.delete(chat);
    tellWaiting();
  }
}

// A message that was sent and not answered is sent again with the same key: it can't be there twice. Not once its sender
// has left: it would be sent as the user who is here by then.
async function surely(chat, { body, key }) {
  const me = state.me;
  for (let attempt = 0; ; attempt++) {
    try {
      return await call("POST", chat, { body }, { "Idempotency-Key": key });
    } catch (error) {
      if (attempt >= 4 || ![0, 502, 503, 504].includes(error.status)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 300 * 2 ** attempt));
      if (state.me !== me) throw error;
    }
  }
}

// Says that the open chat has messages on their way, when the first of them takes long.
function tellWaiting(waited) {
  const waiting = outbox.get(path());
  if (!waiting) $("sending").textContent = "";
  else if (waiting === waited) $("sending").textContent = "Sending…";
}

$("body").addEventListener("input", () => {
  const chat = path(), text = $("body").value, back = returned.get(chat);
  drafts.set(chat, text);
  if (back && !(text + "\n").startsWith(joined(back) + "\n")) returned.delete(chat);
});

// A reload or a closed tab would lose it.
addEventListener("beforeunload", (event) => {
  if (outbox.size || [...drafts, ...(kept ? kept.drafts : [])].some(([, text]) => text.trim())) event.preventDefault();
});
