// The log of one backend, as it is written. Only operators see it: a line may quote a text.

import { $, h, say } from "../dom.js";

const KEPT = 2000;
let open = false;
let reconnect = () => {};

/** `connect` opens the stream again, with the log that is wanted now. */
export function logs(connect) {
  const lines = [];
  let admin = false;
  reconnect = connect;

  function shows(line) {
    return line.toLowerCase().includes($("log-filter").value.toLowerCase());
  }

  function draw() {
    const box = $("log");
    say(box, lines.filter(shows).join("\n"));
    if ($("log-follow").checked) box.scrollTop = box.scrollHeight;
  }

  $("log-of").addEventListener("change", connect);
  $("log-filter").addEventListener("input", draw);
  return {
    reset() {
      lines.length = 0;
      draw();
    },
    state(state) {
      const names = state.launcher && state.admin ? state.backends.map((one) => one.name) : [];
      const select = $("log-of");
      if ([...select.options].map((one) => one.value).join() !== names.join()) {
        const chosen = select.value;
        select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
        if (names.includes(chosen)) select.value = chosen;
      }
      if (admin !== state.admin) {
        admin = state.admin;
        if (open && admin) connect();
      }
      say($("log-hint"), hint(state, lines.length));
    },
    log(added) {
      lines.push(...added);
      lines.splice(0, Math.max(0, lines.length - KEPT));
      draw();
    },
  };
}

function hint(state, written) {
  if (!state.launcher) return "There are no logs: no launcher started this proxy.";
  if (!state.admin) return state.has_admin_keys ? "Logs may quote texts: enter an admin key, above on the right."
    : "Logs may quote texts: they need an admin key, so set admin_keys under [proxy].";
  return written ? "" : "It has written nothing: llama-server writes errors only.";
}

/** The backend whose log is to be in the stream; nothing while the panel is hidden. */
logs.wanted = () => (open ? $("log-of").value : "");

logs.shown = (is) => {
  const changed = open !== is;
  open = is;
  if (changed && (is ? $("log-of").value : true)) reconnect();
};
