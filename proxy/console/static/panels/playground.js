// Texts in, and what the vectors say: near or not, which passage answers, how the text was cut, the request as code.

import { json } from "../api.js";
import { $, count, duration, h, say } from "../dom.js";
import { code } from "./code.js";
import { decoded, matrix, pieces, ranking } from "./results.js";

const ENCODINGS = ["float", "base64", "binary", "ubinary"];
const SAMPLES = {
  compare: "What do I do if my lightsaber overheats?\nMy laser sword is getting too hot.\nHow do I brew a good espresso?",
  search: "What do I do if my lightsaber overheats?\nHow do I brew a good espresso?\nMy spaceship needs a new hyperdrive.",
};

export function playground() {
  const settings = { a: settingFields("a"), b: settingFields("b") };
  let served = null, pictures = []; // each a name and a data URI

  const mode = () => document.querySelector("input[name=mode]:checked").value;
  const twoSettings = () => ($("use-b").checked ? ["a", "b"] : ["a"]);
  const texts = () => $("texts").value.split("\n").map((text) => text.trim()).filter(Boolean);

  const items = () => [...texts(), ...pictures.map(({ uri }) => ({ image: uri }))];
  const titles = () => [...texts(), ...pictures.map(({ name }) => name)];

  async function readPictures() {
    pictures = await Promise.all([...$("pictures").files].map(async (file) => ({ name: file.name, uri: await dataUri(file) })));
    showCode();
  }

  function showMode() {
    const searching = mode() === "search";
    $("query-field").hidden = !searching;
    say($("texts-label"), searching ? "Passages, one a line" : "Texts, one a line");
    if (Object.values(SAMPLES).includes($("texts").value)) $("texts").value = SAMPLES[mode()];
    for (const one of Object.values(settings)) one.late.disabled = searching;
    if (served) for (const one of Object.values(settings)) fillTasks(one.task, served, searching);
    showCode();
  }

  function showB() {
    for (const field of Object.values(settings.b)) field.disabled = !$("use-b").checked;
    settings.b.late.disabled ||= mode() === "search";
  }

  /** The bodies that a setting sends: for a search, the query's and the passages'. */
  function bodies(name) {
    const one = settings[name], searching = mode() === "search";
    const common = {
      model: served?.family,
      ...(one.dimensions.value ? { dimensions: Number(one.dimensions.value) } : {}),
      ...(one.encoding.value === "float" ? {} : { embedding_type: one.encoding.value }),
    };
    if (!searching) return [{ ...common, task: one.task.value, input: items(), ...(one.late.checked ? { late_chunking: true } : {}) }];
    const [query, passage] = one.task.value.split("+");
    return [{ ...common, task: query, input: [$("query").value] }, { ...common, task: passage ?? query, input: items() }];
  }

  async function compute() {
    const names = twoSettings(), started = performance.now();
    say($("play-status"), "computing …");
    try {
      const answers = await Promise.all(names.map((name) => Promise.all(bodies(name).map((body) => embed(body)))));
      const tokens = answers[0].reduce((sum, one) => sum + one.tokens, 0);
      say($("play-status"), `${count(tokens)} tokens in ${duration((performance.now() - started) / 1000)}`);
      showResults(answers, names.map((name) => label(name)));
      await showPieces();
    } catch (error) {
      say($("play-status"), error.message);
    }
  }

  async function embed(body) {
    const answer = await json("v1/embeddings", { method: "POST", body });
    const vectors = answer.data.map((row) => decoded(row.embedding, body.embedding_type ?? "float"));
    return { vectors, tokens: answer.usage.total_tokens };
  }

  function showResults(answers, labels) {
    if (mode() === "search") {
      const lists = answers.map(([query, passages], index) => ranking(query.vectors[0], passages.vectors, titles(), labels[index]));
      $("results").replaceChildren(...lists);
    } else {
      $("results").replaceChildren(...matrix(answers.map(([one]) => one.vectors), titles(), labels));
    }
  }

  async function showPieces() {
    const [body] = bodies("a").slice(-1), input = texts();
    $("pieces-section").hidden = !input.length;
    if (!input.length) return;
    try {
      const shown = await json("console/tokens", { method: "POST", body: { input, task: body.task } });
      $("pieces").replaceChildren(...pieces(shown));
    } catch (error) {
      $("pieces").replaceChildren(h("li", {}, error.message));
    }
  }

  function label(name) {
    const one = settings[name];
    const parts = [one.task.selectedOptions[0]?.textContent, one.dimensions.value && `${one.dimensions.value} dimensions`,
      one.encoding.value !== "float" && one.encoding.value, one.late.checked && !one.late.disabled && "late chunking"];
    return `${name.toUpperCase()}: ${parts.filter(Boolean).join(", ")}`;
  }

  function showCode() {
    say($("code"), code($("language").value, bodies("a").map(withoutData), served?.needs_key ?? false));
  }

  $("play").addEventListener("input", showCode);
  $("play").addEventListener("submit", (event) => { event.preventDefault(); compute(); });
  $("texts").addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) compute(); });
  for (const radio of document.querySelectorAll("input[name=mode]")) radio.addEventListener("change", showMode);
  $("use-b").addEventListener("change", showB);
  $("pictures").addEventListener("change", readPictures);
  $("copy").addEventListener("click", async () => {
    $("code-section").open = true;
    try {
      await navigator.clipboard.writeText($("code").textContent);
      say($("play-status"), "copied");
    } catch { // without TLS a browser may refuse
      getSelection().selectAllChildren($("code"));
      say($("play-status"), "selected: copy it with Ctrl+C");
    }
  });
  showB();
  return {
    state(state) {
      if (served?.family === state.family && served.needs_key === state.needs_key) return;
      served = state;
      $("pictures-field").hidden = !state.images;
      for (const one of Object.values(settings)) {
        one.dimensions.max = state.dimensions;
        one.dimensions.placeholder = state.dimensions;
        $("dimension-sizes").replaceChildren(...state.trained_dimensions.map((size) => h("option", { value: size })));
      }
      showMode();
      const other = [...settings.b.task.options].find((one) => one.value !== settings.a.task.value);
      if (other) settings.b.task.value = other.value;
      showCode();
    },
  };
}

/** The file as a data URI. */
function dataUri(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

/** The body to be shown: megabytes of base64 are no code to copy. */
function withoutData(body) {
  return { ...body, input: body.input.map((one) => (one.image ? { image: `${one.image.slice(0, 60)}…` } : one)) };
}

/** The controls of one setting. */
function settingFields(name) {
  const task = h("select", { id: `task-${name}` });
  const dimensions = h("input", { id: `dimensions-${name}`, type: "number", min: 1 });
  dimensions.setAttribute("list", "dimension-sizes");
  const encoding = h("select", { id: `encoding-${name}` }, ...ENCODINGS.map((one) => h("option", { value: one }, one)));
  const late = h("input", { id: `late-${name}`, type: "checkbox" });
  const field = (text, control) => h("label", {}, `${text} `, control);
  $(`setting-${name}`).append(h("div", { className: "setting" }, field("Task", task), field("Dimensions", dimensions),
    field("Encoding", encoding), h("label", {}, late, " Late chunking: the texts are one document")));
  if (!$("dimension-sizes")) $("play").append(h("datalist", { id: "dimension-sizes" }));
  return { task, dimensions, encoding, late };
}

/** For a search the pairs of a query's and a passage's task; else every task. */
function fillTasks(select, served, searching) {
  const names = served.tasks.map((one) => one.name);
  const pairs = names.filter((name) => name.endsWith(".query") && names.includes(name.replace(/query$/, "passage")));
  const choices = searching
    ? [...pairs.map((name) => [`${name}+${name.replace(/query$/, "passage")}`, `${name} and passage`]),
       ...names.filter((name) => !/\.(query|passage)$/.test(name)).map((name) => [name, `${name} for both`])]
    : names.map((name) => [name, name]);
  const chosen = select.value;
  select.replaceChildren(...choices.map(([value, text]) => h("option", { value }, text)));
  const usual = choices.find(([value]) => value === chosen) ?? choices.find(([value]) => value === served.default_task) ?? choices[0];
  select.value = searching && chosen !== usual[0] ? choices[0][0] : usual[0];
}
