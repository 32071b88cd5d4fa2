// The server, asked. Every answer is JSON; what is not an answer is thrown as a Refused.

/** A request that was refused: what was wrong, and what helps. */
export class Refused extends Error {
  constructor(status, message, hint = "") {
    super(message);
    this.status = status;
    this.hint = hint;
  }
}

async function ask(address, options = {}) {
  let response;
  try {
    response = await fetch(address, { ...options, headers: { Accept: "application/json", ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer.", "mmsearch serve");
  }
  const told = await response.json().catch(() => null);
  if (response.ok) return told;
  const why = told?.error ?? {};
  throw new Refused(response.status, why.message ?? `The server answered ${response.status}.`, why.hint ?? "");
}

const post = (address, body, signal) =>
  ask(address, { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" }, signal });

const named = (address, index) => (index ? `${address}${address.includes("?") ? "&" : "?"}index=${encodeURIComponent(index)}` : address);

/** Return a question without what was not asked. */
function asked({ words, kinds, negative, path, where, min, group, collapse, index }) {
  const body = {};
  if (words) body.query = words;
  if (kinds.length) body.kinds = kinds;
  if (negative) body.negative = [negative];
  if (path) body.path = path;
  if (where) body.where = where;
  if (min) body.min_score = min;
  if (group) body.group = true;
  if (collapse) body.collapse = true;
  if (index) body.index = index;
  return body;
}

const FIELDS = { image: "images", video: "video", pdf: "page" };

/** Return the hits of a question; its pictures and films go along as files. */
export async function search(question, k, signal) {
  const body = { ...asked(question), k };
  if (!question.media.length) return post("v1/search", body, signal);
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) {
    for (const one of Array.isArray(value) ? value : [value]) form.append(name, String(one));
  }
  for (const { file, kind, page } of question.media) {
    form.append(FIELDS[kind], file, file.name || "pasted");
    if (kind === "pdf") form.append("page_number", page);
  }
  return ask("v1/search", { method: "POST", body: form, signal });
}

/** Return the hits most like a segment of the index. */
export const similar = (id, k, index, signal) => post("v1/similar", { segment: id, k, ...(index ? { index } : {}) }, signal);

export const status = (index) => ask(named("v1/status", index));
/** Return a document and its segments from one place on, in the order they lie in it. */
export const pagesOf = (document, offset, limit, index) =>
  ask(named(`v1/documents/${encodeURIComponent(document)}?offset=${offset}&limit=${limit}`, index));

/** Return the words of a page of a PDF, each with its left, top, right and bottom as shares of the page. */
export const wordsOf = (id, index) => ask(named(`v1/segments/${encodeURIComponent(id)}/words`, index));

export const segment = (id, index) => ask(named(`v1/segments/${encodeURIComponent(id)}`, index));

/** Return the address of a segment's thumbnail, picture or file. */
export const mediaOf = (id, what, index) => named(`v1/segments/${encodeURIComponent(id)}/${what}`, index);

export const startIndexing = (path, index) => post("v1/index", { paths: [path], ...(index ? { index } : {}) });
export const job = (id) => ask(`v1/jobs/${encodeURIComponent(id)}`);
export const stopJob = (id) => ask(`v1/jobs/${encodeURIComponent(id)}`, { method: "DELETE" });
export const jobEvents = (id) => new EventSource(`v1/jobs/${encodeURIComponent(id)}/events`);

/** Give the key; from then on a cookie that scripts cannot read opens the door. */
export const enter = (key) => post("page/session", { key });
