"use strict";
// What every page needs to ask the API.

const $ = (id) => document.getElementById(id);

// All tabs have one cookie. A tab where somebody logs in or out tells it to the others.
const tabs = new BroadcastChannel("hubbub");

class Refused extends Error {
  constructor(status, sentence) { super(sentence); this.status = status; }
}

async function call(method, path, content, headers = {}) {
  const options = { method, headers: { ...headers } };
  if (content !== undefined) {
    options.body = JSON.stringify(content);
    options.headers["Content-Type"] = "application/json";
  }
  let answer, text, decoded;
  try {
    answer = await fetch("/api/v1" + path, options);
    text = await answer.text(); // the connection may also break now
  } catch {
    throw new Refused(0, "Hubbub can't be reached. Try again.");
  }
  try {
    decoded = text ? JSON.parse(text) : null;
  } catch {
    // A page of a proxy or of a network that wants a login. As Hubbub didn't answer, nobody knows whether it was asked.
    throw new Refused(answer.ok ? 0 : answer.status, `Hubbub can't be reached: something before it answered with status ${answer.status}. Try again.`);
  }
  if (!answer.ok) throw new Refused(answer.status, (decoded && (decoded.errors || [decoded.error]).join(" ")) || answer.statusText);
  if (/^\/auth\/(register|login|logout|setup)$/.test(path)) tabs.postMessage(path);
  if (answer.headers.has("hubbub-truncated")) decoded.truncated = true;
  if (answer.headers.has("hubbub-lag")) decoded.lag = true;
  return decoded;
}
