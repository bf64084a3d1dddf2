// The page: which panel is shown, the key, and one stream of events for all panels.

import { follow, key, onKeyNeeded, useKey } from "./api.js";
import { $, say } from "./dom.js";
import { showApi } from "./panels/docs.js";
import { logs } from "./panels/logs.js";
import { now } from "./panels/now.js";
import { playground } from "./panels/playground.js";
import { requests } from "./panels/requests.js";

const PANELS = ["now", "requests", "logs", "playground", "api"];
let started = 0;
let stream = new AbortController();

const panels = [now(), requests(), logs(connect), playground()];

function connect() {
  stream.abort();
  stream = new AbortController();
  const log = logs.wanted();
  const path = log ? `console/events?logs=${encodeURIComponent(log)}` : "console/events";
  const handlers = {
    state(state) {
      if (state.started !== started) for (const panel of panels) panel.reset?.();
      started = state.started;
      showServed(state);
      for (const panel of panels) panel.state?.(state);
    },
    requests: (records) => panels.forEach((panel) => panel.requests?.(records)),
    log: (lines) => panels.forEach((panel) => panel.log?.(lines)),
  };
  for (const panel of panels) panel.reset?.();
  follow(path, handlers, showConnection, stream.signal);
}

function showConnection(connected, reason = "") {
  $("connection").className = connected ? "good" : "bad";
  say($("connection"), connected ? "live" : `not connected: ${reason}`);
}

function showServed(state) {
  say($("served"), `${state.family} · ${state.version}`);
  document.title = `${state.family} – trillama`;
  $("notice").hidden = !state.notice;
  say($("notice"), state.notice);
  const may = state.admin ? "Operator" : state.has_admin_keys ? "Unlock actions" : "Key";
  say($("key-button"), may);
  $("key-button").hidden = !state.needs_key && !state.has_admin_keys && !key();
}

function showPanel() {
  const asked = location.hash.slice(1).split("/")[0];
  const shown = PANELS.includes(asked) ? asked : "now";
  for (const name of PANELS) $(name).hidden = name !== shown;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${shown}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (shown === "api") showApi();
  logs.shown(shown === "logs");
}

let asking = null; // many requests may find at once that a key is needed
function ask(why) {
  asking ??= new Promise((resolve) => {
    const dialog = $("key-dialog");
    say($("key-why"), why);
    $("key").value = key();
    dialog.showModal();
    dialog.addEventListener("close", () => { asking = null; resolve(); }, { once: true });
  });
  return asking;
}

onKeyNeeded(ask);
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey($("key").value.trim());
  $("key-dialog").close();
  connect();
});
$("key-cancel").addEventListener("click", () => $("key-dialog").close());
$("key-button").addEventListener("click", () => ask("An admin key allows to restart, pause and reload, and to read logs."));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the panel
  PANELS.map($).find((panel) => !panel.hidden).focus();
});
addEventListener("hashchange", showPanel);
showPanel();
connect();
