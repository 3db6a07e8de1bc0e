"use strict";
// The pages that links lead to: /setup#CODE, /invite#CODE and /reset#CODE; /reset alone asks for a link. The code is behind the #, so that no log has it.

const code = location.hash.slice(1);
const settingUp = location.pathname === "/setup";
// Another link to the same page, opened in this tab, changes what is behind the # and loads nothing.
addEventListener("hashchange", () => location.reload());

function show(id) {
  for (const part of document.querySelectorAll("main > *")) part.hidden = part.id !== id;
  const first = $(id).querySelector("input:not([type=radio]):not([hidden])");
  if (first) first.focus();
}

function submits(id, work) {
  $(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const error = $(id).querySelector(".error"), button = $(id).querySelector("button.primary");
    error.textContent = "";
    button.disabled = true;
    try {
      await work($(id).elements);
    } catch (refused) {
      error.textContent = refused.message;
    } finally {
      button.disabled = false;
    }
  });
}

function done(title, link) {
  $("done-title").textContent = title;
  $("done-link").textContent = link;
  show("done");
}

function chooseWay() {
  const login = $("enter").elements.way.value === "login";
  $("name-field").hidden = login;
  $("enter").elements.name.required = !login;
  $("enter").elements.password.autocomplete = login ? "current-password" : "new-password";
  if (!settingUp) $("enter-button").textContent = login ? "Log in and join" : "Sign up and join";
}
$("way").addEventListener("change", chooseWay);
addEventListener("pageshow", chooseWay); // a browser that goes back fills in what was chosen

// An invite that was accepted before gives the same answer again: so signing up by it, or trying again, joins once.
async function join() {
  const { token } = await call("POST", "/invites/accept", { code });
  const { name } = await call("GET", `/applications/${token}`);
  done(`You are a member of ${name}.`, "Go to its chats");
}

submits("enter", async ({ way, name, email, password }) => {
  const fields = { email: email.value, password: password.value };
  if (settingUp) {
    await call("POST", "/auth/setup", { ...fields, name: name.value, code });
    location.replace("/");
    return;
  }
  if (way.value === "login") await call("POST", "/auth/login", fields);
  else await call("POST", "/auth/register", { ...fields, name: name.value, invite: code });
  await join();
});

submits("join", join);

$("other").addEventListener("click", async () => {
  try {
    await call("DELETE", "/auth/logout");
  } catch (refused) {
    if (refused.status !== 401) { // else the session has ended already
      $("join").querySelector(".error").textContent = refused.message;
      return;
    }
  }
  show("enter");
});

submits("lost", async ({ email }) => {
  const { message } = await call("POST", "/auth/password-reset", { email: email.value });
  done(message, "Go to Hubbub");
});

submits("reset", async ({ password }) => {
  const { message } = await call("POST", "/auth/password-reset/confirm", { code, password: password.value });
  done(message, "Log in");
});

async function invited() {
  try {
    $("person").textContent = (await call("GET", "/auth/me")).user.name;
    show("join");
  } catch {
    show("enter");
  }
}

function setUp() {
  $("title").textContent = "Set up Hubbub";
  $("why").textContent = "Create the operator's account. Operators see the service's state, and the commands that it could not store.";
  $("way").hidden = true;
  $("enter-button").textContent = "Create the account";
  show("enter");
}

if (location.pathname === "/reset") show(code ? "reset" : "lost");
else if (!code) done("This link is not complete.", "Go to Hubbub");
else if (settingUp) setUp();
else invited();
