"use strict";
// What happens in the open chat, as it happens, and after a pause of the connection.

const LOST = "The connection is lost. New messages are shown once it is back.";
let counting, noticing;

function closeStream() {
  connected();
  if (state.stream) state.stream.close();
  state.stream = null;
}

function connected() {
  clearTimeout(noticing);
  noticing = undefined;
  if ($("notice").textContent === LOST) notice("");
}

// After a pause that a refusal caused, the stream is a new one.
function listen(after, pause = 0) {
  if (state.stream) state.stream.close();
  const stream = state.stream = new EventSource(`/api/v1${path()}/stream?after=${after}`);
  let broken = pause > 0;
  state.position = after;
  stream.addEventListener("open", () => {
    connected();
    if (broken) reread().catch(failed);
    broken = false;
    pause = 0;
  });
  stream.addEventListener("error", () => {
    if (stream !== state.stream) return;
    broken = true;
    noticing ??= setTimeout(notice, 3000, LOST); // a service that restarts is back before
    if (stream.readyState === EventSource.CLOSED) again(stream, pause); // it was refused, and a browser doesn't try again
  });
  stream.addEventListener("message", (event) => {
    state.position = event.lastEventId;
    clearTimeout(counting);
    counting = setTimeout(() => chats().catch(failed), 1000);
    if (state.searching) return;
    const message = JSON.parse(event.data), follow = isAtEnd() || message.senderId === state.me.id;
    add(message);
    if (follow) toEnd();
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
    const reason = JSON.parse(event.data);
    stream.close();
    ended(stream, new Refused(reason.status, reason.error));
  });
}

// A stream that was refused, or that the service ended: the chat is gone, its reader may not read it any more, or the
// service had a reason that passes.
function ended(stream, error) {
  if (stream !== state.stream) return;
  if (error.status === 401) failed(error);
  else if (error.status === 403 || error.status === 404) {
    closeChat();
    applications(state.application).catch(failed).then(() => notice(error.message));
  } else again(stream);
}

async function again(stream, pause = 0) {
  const longer = Math.min(2 * pause || 1000, 30_000);
  await new Promise((resolve) => setTimeout(resolve, longer));
  if (stream !== state.stream) return;
  try {
    await call("GET", `${path()}?limit=1`); // a refused stream doesn't say why
    if (stream === state.stream) listen(state.position, longer);
  } catch (error) {
    if ([401, 403, 404].includes(error.status)) ended(stream, error);
    else again(stream, longer);
  }
}

// A stream that comes back has the new messages, but not what was edited or deleted in the meantime.
async function reread() {
  const chat = path(), before = [...$("messages").children], found = new Map();
  let least = Infinity, whole = true;
  while (chat === path() && !state.searching && least > Math.min(...state.numbers)) {
    const page = await call("GET", `${chat}?limit=100${least < Infinity ? `&before=${least}` : ""}`);
    for (const message of page) found.set("m" + message.messageNumber, message);
    whole &&= !page.lag;
    least = page.length ? page.at(-1).messageNumber : 0;
  }
  if (chat !== path() || state.searching) return;
  for (const shown of before) {
    if (!shown.isConnected) continue; // the stream has brought a later change of it meanwhile
    const message = found.get(shown.id);
    if (!message && whole) shown.remove();
    else if (message && shown.dataset.edited !== String(message.editedAt)) shown.replaceWith(item(message));
  }
}
