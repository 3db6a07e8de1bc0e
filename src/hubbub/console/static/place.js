"use strict";
// Where the reader is: the application, the chat or the operator's page, behind the # of the address. So a reload, a
// bookmark, and the browser's own way back and forward lead there.

function place() {
  if (!$("operator").hidden) return "#operator";
  if (!state.application) return "";
  return state.chat === null ? `#${state.application}` : `#${state.application}/${state.chat}`;
}

// After a step of the reader's own; ``replace`` after the page's.
function record(replace = false) {
  if (!state.me || location.hash === place()) return;
  history[replace ? "replaceState" : "pushState"](null, "", place() || location.pathname);
}

// Go where the address says. What it doesn't name, or names and isn't there, is left as it is.
async function go() {
  const hash = location.hash, [token, number] = hash.slice(1).split("/");
  if (!state.me) return;
  const watching = token === "operator" && !$("to-operator").hidden;
  show(watching ? "operator" : "chat");
  if (watching) return;
  const known = [...$("applications").options].some((each) => each.value === token);
  if (known && token !== state.application) {
    $("applications").value = token;
    await choose(token);
  } else if (number === undefined) closeChat();
  if (!known || number === undefined || location.hash !== hash || String(state.chat) === number) return;
  const chat = await call("GET", `/applications/${token}/chats/${encodeURIComponent(number)}`);
  if (location.hash === hash && state.application === token) await open(chat.chatNumber, titleOf(chat));
}
addEventListener("popstate", () => go().catch(failed));

// The link to the content moves the focus alone: what is behind the # names a place.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  $("main").focus();
});
