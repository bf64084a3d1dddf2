// Vectors shown: a matrix of cosines as a heat map, a ranking, the pieces of texts. And how encoded vectors are read.

import { count, h, short } from "../dom.js";

const SHOWN = 60; // characters of a text

/** Numbers of any encoding; bits become -1 and 1, so that their cosine counts equal bits. */
export function decoded(row, encoding) {
  if (encoding === "float") return row;
  if (encoding === "base64") {
    const bytes = Uint8Array.from(atob(row), (one) => one.charCodeAt(0));
    return new Float32Array(bytes.buffer);
  }
  return row.flatMap((value) => {
    const byte = encoding === "binary" ? value + 128 : value; // signed bytes are shifted by 128
    return [7, 6, 5, 4, 3, 2, 1, 0].map((bit) => ((byte >> bit) & 1 ? 1 : -1));
  });
}

export function cosine(a, b) {
  let dot = 0, aa = 0, bb = 0;
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return aa && bb ? dot / Math.sqrt(aa * bb) : 0;
}

const written = (value) => value.toFixed(3).replace("-0.000", "0.000");

/** A heat map for each setting, side by side, and a sentence on what the settings change. */
export function matrix(sets, texts, labels) {
  const tables = sets.map((vectors) => vectors.map((a) => vectors.map((b) => cosine(a, b))));
  const figures = tables.map((table, index) => heatMap(table, texts, labels[index]));
  return [...figures, h("p", { className: "verdict" }, ...sentences(tables, texts))];
}

function heatMap(table, texts, label) {
  const head = h("tr", {}, h("td"), ...texts.map((text, index) => h("th", { scope: "col", title: text }, `${index + 1}`)));
  const rows = table.map((row, index) =>
    h("tr", {}, h("th", { scope: "row", className: "text", title: texts[index] }, `${index + 1} ${short(texts[index], SHOWN)}`),
      ...row.map((value, column) => heat(value, index === column))));
  const grid = h("table", { className: "heat" }, h("caption", {}, label), h("thead", {}, head), h("tbody", {}, ...rows));
  return h("div", { className: "scroll", role: "region", tabIndex: 0, "aria-label": `Cosines, ${label}` }, grid);
}

function heat(value, itself) {
  const cell = h("td", { className: itself ? "number itself" : "number" }, written(value));
  cell.style.setProperty("--heat", `${(Math.max(0, value) * 100).toFixed(0)}%`);
  return cell;
}

function sentences(tables, texts) {
  const pairs = texts.flatMap((_, a) => texts.slice(a + 1).map((_, b) => [a, a + 1 + b]));
  if (!pairs.length) return ["One text has nothing to be near to: enter two, each in a line."];
  const [a, b] = pairs.reduce((best, pair) => (tables[0][pair[0]][pair[1]] > tables[0][best[0]][best[1]] ? pair : best));
  const nearest = `Nearest are ${a + 1} and ${b + 1}, with a cosine of ${written(tables[0][a][b])}.`;
  if (tables.length === 1) return [`${nearest} 1 is the same; what counts as near differs by model and task, so compare with a pair that you know.`];
  const change = ([x, y]) => Math.abs(tables[1][x][y] - tables[0][x][y]);
  const [x, y] = pairs.reduce((best, pair) => (change(pair) > change(best) ? pair : best));
  return [`${nearest} B changes most between ${x + 1} and ${y + 1}: ${written(tables[0][x][y])} becomes ${written(tables[1][x][y])}.`];
}

/** The passages, the best first. */
export function ranking(query, passages, texts, label) {
  const ranked = passages.map((vector, index) => [cosine(query, vector), index]).sort((a, b) => b[0] - a[0]);
  const rows = ranked.map(([score, index], place) => {
    const bar = h("span", { className: "bar" });
    bar.style.width = `${(Math.max(0, score) * 100).toFixed(1)}%`;
    return h("tr", {}, h("td", { className: "number" }, `${place + 1}`), h("td", { className: "number" }, written(score)),
      h("td", { className: "share" }, h("span", { className: "track", "aria-hidden": "true" }, bar)), h("td", { className: "text", title: texts[index] }, texts[index]));
  });
  const heads = [["Place", "number"], ["Cosine", "number"], ["", ""], ["Passage", ""]].map(([text, className]) =>
    text ? h("th", { scope: "col", className }, text) : h("td"));
  const table = h("table", { className: "ranking" }, h("caption", {}, label), h("thead", {}, h("tr", {}, ...heads)), h("tbody", {}, ...rows));
  return h("div", { className: "scroll", role: "region", tabIndex: 0, "aria-label": `Ranking, ${label}` }, table);
}

/** A list entry for each text, its tokens coloured in turn. */
export function pieces(answer) {
  return answer.texts.map((text) => {
    const marks = text.pieces.map((piece, index) =>
      h("span", { className: `piece ${piece.kind} ${index % 2 ? "odd" : "even"}`, title: `id ${piece.id}` }, visible(piece)));
    const left = text.tokens - text.pieces.length;
    const over = text.tokens > answer.limit ? `, of at most ${count(answer.limit)}` : "";
    return h("li", {}, h("span", { className: "count" }, `${count(text.tokens)} tokens${over}`), " ", ...marks, left > 0 ? ` and ${count(left)} more` : "");
  });
}

function visible(piece) {
  if (piece.kind === "special") return piece.text || `id ${piece.id}`;
  return piece.text ? piece.text.replaceAll("\n", "↵") : "·"; // a token that only continues a character
}
