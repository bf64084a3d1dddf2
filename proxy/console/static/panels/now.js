// What runs now: totals, a card for each backend, latencies, actions.

import { request } from "../api.js";
import { $, ago, bytes, clock, count, duration, h, number, say, short, svg } from "../dom.js";

// Of the proxy's state, and of the process where that tells more.
const STATES = {
  ready: ["ready", "good"], loading: ["loading", "busy"], recovering: ["recovering", "busy"], held: ["paused", "idle"], down: ["down", "bad"],
};
const PROCESS_STATES = { starting: ["loading", "busy"], backoff: ["restarting", "bad"], failed: ["failed", "bad"], sleeping: ["sleeping", "idle"] };
const WIDTH = 240, HEIGHT = 36;

export function now() {
  const cards = new Map();
  $("reload").addEventListener("click", () => act("console/reload"));
  return {
    state(state) {
      showTotals(state);
      for (const backend of state.backends) {
        if (!cards.has(backend.name)) cards.set(backend.name, card(backend.name));
        cards.get(backend.name)(backend, state);
      }
      $("routes").replaceChildren(...state.routes.map(route));
      showActions(state);
    },
  };
}

function showTotals(state) {
  const shown = state.backends.map((one) => [one.name, ...shownState(one)]);
  const ready = shown.filter(([, , look]) => look === "good").length;
  const bad = shown.filter(([, , look]) => look === "bad").map(([name, word]) => `${name} ${word}`);
  const looked = state.cache ? state.cache.hit + state.cache.miss : 0;
  const rows = [
    ["Backends ready", [`${ready} of ${state.backends.length}`, ...bad].join(", ")],
    ["Dimensions", count(state.dimensions)],
    ["Longest text", `${count(state.input_tokens)} tokens`],
    ["Tokens computed", count(state.backends.reduce((sum, one) => sum + one.tokens_total, 0))],
    ["Requests", count(state.requests)],
    ["Sends most", mostOf(state)],
    ["Cache hits", state.cache ? `${count(state.cache.hit)} of ${count(looked)}` : "off"],
    ["Up", ago(state.time - state.started)],
  ];
  const list = $("totals");
  if (list.children.length !== rows.length)
    list.replaceChildren(...rows.map(([name]) => h("div", {}, h("dt", {}, name), h("dd"))));
  rows.forEach(([, value], index) => say(list.children[index].lastChild, value));
  list.firstChild.classList.toggle("bad", bad.length > 0);
}

/** The client with most tokens, and its share; the panel Requests has the others. */
function mostOf(state) {
  const [first] = state.clients;
  if (!state.sees_all) return "for operators";
  const total = state.clients.reduce((sum, one) => sum + one.tokens, 0);
  return total ? `${short(first.client, state.needs_key ? 9 : 15)}, ${((first.tokens / total) * 100).toFixed(0)} %` : "nobody yet";
}

/** A card; returns what updates it. */
function card(name) {
  const title = `backend-${name}`;
  const badge = h("span", { className: "badge" });
  const reason = h("p", { className: "reason", hidden: true });
  const restart = h("button", { type: "button", "aria-label": `Restart ${name}` }, "Restart");
  const pause = h("button", { type: "button" }, "Pause");
  const buttons = h("div", { className: "toolbar", hidden: true }, restart, pause);
  const fields = new Map();
  const list = h("dl", { className: "fields" });
  const curve = sparkline();
  const head = h("div", { className: "card-head" }, h("h3", { id: title }, name), badge, buttons);
  const article = h("article", { className: "card", "aria-labelledby": title }, head, reason, curve.element, list);
  $("backends").append(article);
  const base = `console/backends/${encodeURIComponent(name)}`;
  restart.addEventListener("click", () => act(`${base}/restart`));
  pause.addEventListener("click", () => act(`${base}/${pause.textContent.toLowerCase()}`));

  return (backend, state) => {
    const [word, look] = shownState(backend);
    badge.className = `badge ${look}`;
    say(badge, word);
    const why = whyNot(backend);
    reason.hidden = !why;
    say(reason, why);
    buttons.hidden = !(state.admin && backend.process);
    say(pause, backend.process?.paused ? "Resume" : "Pause");
    pause.setAttribute("aria-label", `${pause.textContent} ${name}`);
    curve.show(backend, state.step_s);
    for (const [label, value, hint = ""] of facts(backend, state)) {
      if (!fields.has(label)) {
        fields.set(label, h("dd"));
        list.append(h("div", {}, h("dt", {}, label), fields.get(label)));
      }
      say(fields.get(label), value);
      if (fields.get(label).title !== hint) fields.get(label).title = hint;
    }
  };
}

function shownState(backend) {
  const process = backend.process;
  if (process?.paused) return ["paused", "idle"];
  if (process?.state === "starting" && process.loaded > 0) return [`loading ${Math.floor(process.loaded * 100)} %`, "busy"];
  return PROCESS_STATES[process?.state] ?? STATES[backend.state] ?? [backend.state, "idle"];
}

function whyNot(backend) {
  const process = backend.process;
  if (process?.paused) return "An operator has paused it; its requests wait.";
  if (process?.state === "sleeping") return "It starts with its first request.";
  const troubled = process && process.state !== "ready";
  if (backend.state === "ready" && !troubled) return "";
  const reason = backend.state === "ready" ? "" : backend.reason;
  return [troubled ? process.cause : "", reason].filter(Boolean).join(" — ");
}

function facts(backend, state) {
  const { made, process, lanes } = backend;
  const quarantined = Object.entries(backend.quarantined);
  const lane = (one) => `${count(one.requests)} requests, ${count(one.tokens)} tokens`;
  return [
    ["Model file", backend.file.split(/[\\/]/).pop() || "unknown", backend.file],
    ["Quantisation", made.quantization],
    ["Digest", short(made.digest.replace("sha256:", ""), 13), made.digest],
    ["Vector space", made.space],
    ["Pooling", made.pooling],
    ["Engine", made.engine],
    ["Device", process ? process.devices.join(", ") || "CPU" : "unknown"],
    ["Memory planned", process ? planned(process) : "unknown"],
    ["Memory taken", process?.resident_bytes ? `${bytes(process.resident_bytes)} of RAM` : "unknown"],
    ["Restarts", process ? restarts(process, state.time) : "unknown"],
    ["Queue, interactive", lane(lanes.interactive)],
    ["Queue, bulk", lane(lanes.bulk)],
    ["Batch in flight", backend.in_flight_texts ? `${count(backend.in_flight_texts)} texts` : "none"],
    ["Tokens computed", count(backend.tokens_total)],
    ["Quarantined texts", quarantined.length ? quarantined.map(([digest, left]) => `${short(digest, 13)} (${ago(left)})`).join(", ") : "none",
      quarantined.map(([digest]) => digest).join(" ")],
    ["Tasks", backend.tasks.join(", ") || "late chunks, multi-vectors"],
  ];
}

const planned = (process) =>
  Object.entries(process.planned_bytes).map(([device, size]) => `${device} ${bytes(size)}`).join(", ") || "not planned";

function restarts(process, time) {
  const last = process.restarts && process.cause ? `; last: ${process.cause}` : "";
  return `${process.restarts}${last}; ${process.state} for ${ago(time - process.since)}`;
}

/** Tokens a second in the last ten minutes. */
function sparkline() {
  const area = svg("polygon", { class: "area" });
  const line = svg("polyline", { class: "line" });
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, area, line);
  const text = h("p", { className: "speed" });
  return {
    element: h("div", { className: "sparkline" }, picture, text),
    show(backend, step) {
      const points = backend.history;
      const most = Math.max(0, ...points), top = Math.max(1, most);
      const x = (index) => (WIDTH - (points.length - 1 - index) * (WIDTH / 119)).toFixed(1);
      const places = points.map((value, index) => `${x(index)},${(HEIGHT - 1 - (value / top) * (HEIGHT - 3)).toFixed(1)}`);
      line.setAttribute("points", places.join(" "));
      area.setAttribute("points", places.length ? `${x(0)},${HEIGHT} ${places.join(" ")} ${WIDTH},${HEIGHT}` : "");
      const latest = points.length ? points[points.length - 1] : 0;
      const told = `${count(Math.round(latest))} tokens/s now, ${count(Math.round(most))} at most in ${ago(points.length * step)}`;
      picture.setAttribute("aria-label", told);
      say(text, `${told}; a batch computes ${count(Math.round(backend.tokens_per_s))} tokens/s`);
    },
  };
}

const route = (one) =>
  h("tr", {}, h("th", { scope: "row" }, one.route), number(count(one.requests)), number(count(one.failed)),
    number(duration(one.p50_s)), number(duration(one.p95_s)), number(duration(one.p99_s)));

function showActions(state) {
  const may = state.admin && state.launcher;
  $("reload").hidden = !may;
  say($("actions-hint"), may ? "Requests wait while a backend restarts or is paused; none is lost." : whyNoActions(state));
  const told = (one) => `${clock(one.at)} ${one.verb} ${one.backend}: ${one.done ? one.error || "done" : "running …"}`;
  const list = $("actions"), lines = state.actions.toReversed().map(told);
  if ([...list.children].map((one) => one.textContent).join() !== lines.join())
    list.replaceChildren(...lines.map((line) => h("li", {}, line)));
}

function whyNoActions(state) {
  if (!state.launcher) return "None: no launcher started this proxy.";
  if (state.has_admin_keys) return "They need an admin key: enter it above, on the right.";
  return state.needs_key ? "They need an admin key: set admin_keys under [proxy]."
    : "Without keys they are for this machine only: open the console on 127.0.0.1, or set admin_keys under [proxy].";
}

async function act(path) {
  try {
    await request(path, { method: "POST" });
  } catch (error) {
    say($("actions-hint"), error.message);
  }
}
