// Elements without a framework, and how values are written. Nothing here uses HTML in strings: the page's policy forbids it.

export const $ = (id) => document.getElementById(id);

/** An element; properties that the element has are set, others become attributes. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Change a text only if it differs, so that a selection in it survives the next second. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const cell = (text, properties = {}) => h("td", properties, text);
export const number = (text) => cell(text, { className: "number" });

export const count = (value) => value.toLocaleString("en");
export const short = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
export const clock = (seconds) => new Date(seconds * 1000).toLocaleTimeString("en-GB");

export function duration(seconds) {
  if (seconds < 0.0995) return `${(seconds * 1000).toFixed(1)} ms`;
  return seconds < 0.9995 ? `${(seconds * 1000).toFixed(0)} ms` : `${seconds.toFixed(2)} s`;
}

export function ago(seconds) {
  const steps = [["d", 86400], ["h", 3600], ["min", 60]];
  for (const [unit, size] of steps) if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  return `${Math.max(0, Math.floor(seconds))} s`;
}

export function bytes(value) {
  const unit = value >= 2 ** 30 ? ["GiB", 2 ** 30, 2] : ["MiB", 2 ** 20, 0];
  return `${(value / unit[1]).toFixed(unit[2])} ${unit[0]}`;
}

export function download(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  h("a", { href: url, download: name }).click();
  URL.revokeObjectURL(url);
}
