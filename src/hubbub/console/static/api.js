"use strict";
// What every page needs to ask the API.

const $ = (id) => document.getElementById(id);

class Refused extends Error {
  constructor(status, sentence) { super(sentence); this.status = status; }
}

async function call(method, path, content, headers = {}) {
  const options = { method, headers: { ...headers } };
  if (content !== undefined) {
    options.body = JSON.stringify(content);
    options.headers["Content-Type"] = "application/json";
  }
  let answer;
  try {
    answer = await fetch("/api/v1" + path, options);
  } catch {
    throw new Refused(0, "Hubbub can't be reached. Try again.");
  }
  const text = await answer.text();
  const decoded = text ? JSON.parse(text) : null;
  if (!answer.ok) throw new Refused(answer.status, (decoded && (decoded.errors || [decoded.error]).join("; ")) || answer.statusText);
  if (answer.headers.has("hubbub-truncated")) decoded.truncated = true;
  return decoded;
}
