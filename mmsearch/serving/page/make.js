// Elements, made. Words only ever become text nodes: nothing here, and nothing in this page,
// takes markup from a string, and the page's CSP (Trusted Types) refuses whoever tries.

const SVG = "http://www.w3.org/2000/svg";

/** Return the element of that id, which index.html has. */
export const byId = (id) => document.getElementById(id);

/** Return a new element: attributes by name, listeners by "onclick"..., children nodes or text. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Return an icon of index.html's sprite; it says nothing to those who do not see it. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Show another icon of the sprite in an element that has one. */
export function setIcon(element, name) {
  element.querySelector("use").setAttribute("href", `#i-${name}`);
}

/** Return seconds as people say them: 1:04. */
export function clock(seconds) {
  const whole = Math.round(seconds);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (n) => String(n).padStart(2, "0");
  return h ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

/** Return where a hit lies in its file: "page 3", "1:04–1:09", or nothing. */
export function placeOf(hit) {
  if (hit.page !== undefined) return `page ${hit.page}`;
  if (hit.start !== undefined) return `${clock(hit.start)}–${clock(hit.end)}`;
  return "";
}

/** Return the last part of a path, and the folder before it. */
export function splitPath(path) {
  const cut = path.lastIndexOf("/");
  return { folder: path.slice(0, Math.max(cut, 0)), name: path.slice(cut + 1) };
}

/** Return bytes as people say them. */
export function size(bytes) {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let step = 0;
  while (bytes >= 1000 && step < units.length - 1) [bytes, step] = [bytes / 1000, step + 1];
  return `${bytes >= 10 || step === 0 ? Math.round(bytes) : bytes.toFixed(1)} ${units[step]}`;
}

/** Return a count and its noun: "1 page", "2 pages". */
export const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

// Words that say nothing by themselves, and so are not marked.
const EMPTY = new Set(
  ("a an and are as at be by can did do does for from had has have how in into is it its of off on " +
    "or our out over that the their there they this to was were what when where which who why will with you").split(" "),
);

/** Return what marks the words of a question in a text: lower-case beginnings of them. */
export function stemsOf(question) {
  const words = question.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return [...new Set(words.filter((word) => word.length > 1 && !EMPTY.has(word)))].map((word) =>
    word.length > 5 ? word.replace(/(ing|ies|es|ed|s|y)$/u, "") : word.replace(/s$/u, ""),
  );
}

/** Say whether a word is one of the question's. Short ones count whole only: "to" is not the beginning of anything. */
export function isAsked(word, stems) {
  const low = word.toLowerCase();
  return stems.some((stem) => (stem.length < 4 ? low === stem || low === `${stem}s` : low.startsWith(stem)));
}

/** Return a text as nodes, the question's words in <mark>. */
export function marked(text, stems) {
  const made = document.createDocumentFragment();
  let from = 0;
  for (const { index, 0: word } of stems.length ? text.matchAll(/[\p{L}\p{N}]+/gu) : []) {
    if (!isAsked(word, stems)) continue;
    made.append(text.slice(from, index), make("mark", {}, word));
    from = index + word.length;
  }
  made.append(text.slice(from));
  return made;
}

/** Return the part of a text, at most so long, where most of the question's words are. */
export function snippet(text, stems, length = 150) {
  const flat = text.replace(/\s+/gu, " ").trim();
  if (flat.length <= length) return flat;
  const starts = [...flat.matchAll(/[\p{L}\p{N}]+/gu)]
    .filter(({ 0: word }) => stems.some((stem) => word.toLowerCase().startsWith(stem)))
    .map(({ index, 0: word }) => [index, stems.findIndex((stem) => word.toLowerCase().startsWith(stem))]);
  let [best, most] = [0, 0];
  for (const [at] of starts) {
    const inside = new Set(starts.filter(([other]) => other >= at && other < at + length - 30).map(([, which]) => which));
    if (inside.size > most) [best, most] = [at, inside.size];
  }
  let from = Math.max(0, best - 30);
  if (from) from = flat.indexOf(" ", from) + 1 || from;
  const cut = flat.slice(from, from + length);
  const end = from + length < flat.length ? cut.replace(/\s+\S*$/u, "") : cut;
  return `${from ? "… " : ""}${end}${from + end.length < flat.length ? " …" : ""}`;
}
