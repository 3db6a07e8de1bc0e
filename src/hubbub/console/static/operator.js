"use strict";
// The operator's page: what this process does, once a second.

const tiles = new Map();
let before = null, watching = false, deadShown = 0;

async function watch() {
  if (watching) return;
  watching = true;
  let said = null; // what this told
  while (!$("operator").hidden) {
    try {
      const reading = await call("GET", "/operator");
      if ($("operator").hidden) break;
      figures(reading);
      if ($("notice").textContent === said) notice("");
      said = null;
    } catch (error) {
      said = error.message;
      failed(error);
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
  // After a restart all counts begin anew.
  const then = before && total(before.requests) <= total(reading.requests) ? before : null, seconds = then ? reading.at - then.at : 0;
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
  const errors = reading.errors.length ? reading.errors : ["None since the process began."];
  // Unchanged lines stay, so that they can be selected and copied.
  if ([...$("errors").children].map((each) => each.textContent).join("\n") !== errors.join("\n")) $("errors").replaceChildren(...errors.map((line) => el("li", {}, line)));
  if ((figure("hubbub_dead_letters") || 0) !== deadShown) deadLetters(figure("hubbub_dead_letters")).catch(failed);
}

// Looking at dead letters takes them off the queue for a moment, so it is done when their number has changed.
async function deadLetters(count) {
  deadShown = count;
  const me = state.me, letters = count ? await call("GET", "/operator/dead") : [];
  if (state.me !== me) return; // another user is here by now
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

// Nothing of it stays for the next user.
function forgetFigures() {
  for (const id of ["tiles", "routes", "errors", "dead"]) $(id).replaceChildren();
  $("no-dead").hidden = false;
  $("dead-box").hidden = true;
  tiles.clear();
  before = null;
  deadShown = 0;
}

function tile(title, value, words) {
  let shown = tiles.get(title);
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
    tiles.set(title, shown);
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
