// The latest requests, and who sends most.

import { $, cell, clock, count, download, duration, h, number, say, short } from "../dom.js";

const KEPT = 200;

export function requests() {
  let records = [];
  let shown = [];
  let paused = false;

  function matching() {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    return shown.filter((one) => {
      if ($("failed-only").checked && one.status < 400) return false;
      const text = [one.route, one.usage?.task, one.client, one.status, one.id, one.trace, one.error].join(" ").toLowerCase();
      return words.every((word) => text.includes(word));
    });
  }

  function draw() {
    const rows = matching();
    $("latest").replaceChildren(...rows.toReversed().map(row));
    say($("listed"), `${rows.length} of ${shown.length}${paused ? ", paused" : ""}`);
  }

  function filterBy(client) {
    $("filter").value = client;
    draw();
    $("filter").focus();
  }

  $("filter").addEventListener("input", draw);
  $("failed-only").addEventListener("input", draw);
  $("pause-list").addEventListener("click", () => {
    paused = !paused;
    $("pause-list").setAttribute("aria-pressed", String(paused));
    say($("pause-list"), paused ? "Continue" : "Pause");
    if (!paused) shown = records;
    draw();
  });
  $("export").addEventListener("click", () => download("trillama-requests.json", JSON.stringify(matching(), null, 2)));

  let drawn = "";
  return {
    reset() {
      records = [];
    },
    requests(added) {
      records = [...records, ...added].slice(-KEPT);
      if (paused) return;
      shown = records;
      draw();
    },
    state(state) {
      say($("clients-hint"), state.needs_key
        ? "By the digest of the API key, since the proxy started." + (state.sees_all ? "" : " An operator sees those of others, too.")
        : "By address, since the proxy started: there are no API keys." + (state.sees_all ? "" : " An operator sees those of others, too."));
      const total = state.clients.reduce((sum, one) => sum + one.tokens, 0);
      const now = JSON.stringify(state.clients.map((one) => [one.client, one.requests]));
      if (now === drawn) return; // so that a button keeps the focus
      drawn = now;
      $("clients").replaceChildren(...state.clients.map((one) => client(one, total, filterBy)));
    },
  };
}

function row(one) {
  const usage = one.usage;
  const value = (show) => number(usage ? show(usage) : "–");
  const status = one.error ? `${one.status} ${one.error}` : `${one.status}`;
  return h("tr", { className: one.status >= 400 ? "failed" : "" },
    cell(clock(one.at), { title: one.trace ? `${one.id}, trace ${one.trace}` : one.id }), cell(`${one.method === "POST" ? "" : `${one.method} `}${one.route}`), cell(usage?.task ?? "–"),
    value(({ inputs }) => count(inputs)), value(({ tokens }) => count(tokens)),
    value(({ wait_s }) => duration(wait_s)), value(({ compute_s }) => duration(compute_s)),
    number(duration(one.seconds)), cell(status, { className: "status" }), cell(short(one.client, 20), { title: one.client }));
}

function client(one, total, filterBy) {
  const share = total ? one.tokens / total : 0;
  const button = h("button", { type: "button", className: "link", title: "Show its requests" }, one.client);
  button.addEventListener("click", () => filterBy(one.client));
  const bar = h("span", { className: "bar" });
  bar.style.width = `${(share * 100).toFixed(1)}%`;
  return h("tr", {}, h("th", { scope: "row" }, button),
    h("td", { className: "share" }, h("span", { className: "track", "aria-hidden": "true" }, bar), `${(share * 100).toFixed(0)} %`),
    number(count(one.tokens)), number(count(one.inputs)), number(count(one.requests)), number(count(one.failed)),
    number(clock(one.last)));
}
