// The page: a question in, hits out, and where one was last, kept in the address.
//
//   form, picture, address -> question -> api.search | api.similar -> grid -> viewer
//
// The address holds the whole question but its pictures, which are nowhere but in this tab: a link
// sent to somebody else shows the same hits, and back and forward bring the pictures too.

import { enter, search, segment, similar, status } from "./api.js";
import { showHits, walkByArrows } from "./grid.js";
import { heldBy, Library } from "./library.js";
import { byId, count, make, placeOf, setIcon, splitPath, stemsOf } from "./make.js";
import { Media } from "./media.js";
import { Viewer } from "./viewer.js";

const FIRST = 24; // hits at first; "Show more" adds as many again
const MOST = 240;

const words = byId("words");
const results = byId("results");
const media = new Media({
  onChange: askAnew,
  onRefused: () => complain({ message: "That is no picture, no film and no PDF.", hint: "PNG, JPEG, WebP, MP4, PDF ..." }),
});
const asked = []; // the files of every question, for back and forward: history.state.media says which
let likeHit = null; // the hit whose likes are shown
let shown = { hits: [], stems: [] };
let k = FIRST;
let running = null; // AbortController of the question being answered

// ---------------------------------------------------------------- the question

const value = (id) => byId(id).value.trim();
const pressed = () => [...document.querySelectorAll("[data-kind][aria-pressed=true]")].map((chip) => chip.dataset.kind);

function question() {
  return {
    words: words.value.trim(), media: media.parts, kinds: pressed(), negative: value("negative"), path: value("path"), where: value("where"),
    min: Number(byId("min").value), group: byId("group").checked, collapse: byId("collapse").checked, index: indexName(),
  };
}

const indexName = () => (byId("which").hidden ? "" : byId("index").value);

/** Return the address of a question: nothing in it that was not asked. */
function addressOf({ like = likeHit?.id, hit = "" } = {}) {
  const all = question();
  const fields = like ? { like, index: all.index } : { ...all, q: all.words, words: "", media: "" };
  const params = new URLSearchParams();
  for (const [name, one] of Object.entries({ ...fields, hit })) {
    const told = one === true ? "1" : Array.isArray(one) ? one.join(",") : one ? String(one) : "";
    if (told) params.set(name, told);
  }
  return `?${params}`;
}

/** Fill the form from an address. */
function readAddress() {
  const params = new URLSearchParams(location.search);
  const text = (name) => params.get(name) ?? "";
  words.value = text("q");
  for (const name of ["negative", "path", "where"]) byId(name).value = text(name);
  byId("min").value = text("min") || "0";
  for (const name of ["group", "collapse"]) byId(name).checked = text(name) === "1";
  const kinds = text("kinds").split(",");
  for (const chip of document.querySelectorAll("[data-kind]")) chip.setAttribute("aria-pressed", String(kinds.includes(chip.dataset.kind)));
  if (params.has("index")) byId("index").value = text("index");
  countFilters();
  return { like: text("like"), hit: text("hit") };
}

function countFilters() {
  byId("min-told").textContent = Number(byId("min").value).toFixed(2).replace(/\.?0+$/u, "");
  const { negative, path, where, min, group, collapse } = question();
  const num = [negative, path, where, min, group, collapse].filter(Boolean).length;
  byId("num-filters").textContent = num;
  byId("num-filters").hidden = !num;
}

/** Go on to an address, and remember the files that go with it. */
function goTo(address) {
  history.pushState({ media: asked.push(media.parts) - 1 }, "", address);
}

const isAsking = () => Boolean(words.value.trim() || media.parts.length);

// ---------------------------------------------------------------- asking

/** Ask what the form says, and keep it in the address; an empty form shows the first page. */
function askAnew() {
  likeHit = null;
  k = FIRST;
  viewer.close();
  goTo(isAsking() || pressed().length ? addressOf({ like: "" }) : "./");
  return answer();
}

function askForLikes(hit) {
  likeHit = hit;
  k = FIRST;
  viewer.close();
  words.value = "";
  media.parts = [];
  goTo(addressOf({ like: hit.id }));
  return answer();
}

/** Get and show the hits of what the form, or the hit whose likes are wanted, says. */
async function answer() {
  running?.abort();
  const mine = (running = new AbortController());
  media.show();
  byId("trouble").hidden = true;
  byId("welcome").hidden = Boolean(likeHit) || isAsking();
  byId("results-title").hidden = !byId("welcome").hidden;
  document.title = [likeHit ? `Like ${splitPath(likeHit.path).name}` : words.value.trim(), "mmsearch"].filter(Boolean).join(" · ");
  if (!likeHit && !isAsking()) {
    running = null;
    document.body.removeAttribute("aria-busy");
    show([], "");
    return;
  }
  document.body.setAttribute("aria-busy", "true");
  const began = performance.now();
  try {
    const told = likeHit ? await similar(likeHit.id, k, indexName(), mine.signal) : await search(question(), k, mine.signal);
    const took = Math.round(told.took_ms ?? performance.now() - began);
    show(told.hits, told.hits.length ? count(told.hits.length, "hit") : "Nothing found", ` in ${took} ms`);
  } catch (error) {
    if (error.name === "AbortError") return;
    show([], "");
    complain(error);
  } finally {
    if (running === mine) {
      running = null;
      document.body.removeAttribute("aria-busy");
    }
  }
}

function show(hits, told, time = "") {
  const stems = stemsOf(likeHit ? "" : words.value);
  shown = { hits, stems };
  byId("told").replaceChildren(told);
  if (likeHit) {
    const { name } = splitPath(likeHit.path);
    byId("told").append(" like ", make("b", {}, [name, placeOf(likeHit)].filter(Boolean).join(", ")));
  }
  byId("told").append(time);
  byId("legend").hidden = !hits.length;
  showHits(results, hits, { stems, index: indexName(), onOpen: openHit, onLike: askForLikes, hrefOf: (hit) => addressOf({ hit: hit.id }) });
  byId("more").hidden = hits.length < k || k >= MOST;
  if (told && !hits.length) complain({ message: "No page, picture or moment answers that.", hint: "Other words, or fewer filters, may." });
}

function complain(error) {
  if (error.status === 401) {
    if (!byId("door").open) byId("door").showModal();
    return;
  }
  const [what, remedy] = byId("trouble").children;
  what.textContent = error.message;
  remedy.textContent = error.hint ?? "";
  byId("trouble").hidden = false;
}

// ---------------------------------------------------------------- one hit

const viewer = new Viewer({
  onLike: askForLikes,
  onMove(hit, last) {
    if (hit) return history.replaceState(history.state, "", addressOf({ hit: hit.id }));
    if (new URLSearchParams(location.search).has("hit")) history.replaceState(history.state, "", addressOf());
    return [...results.querySelectorAll(".card")].find((card) => card.dataset.id === last?.id)?.focus();
  },
});

function openHit(hit) {
  goTo(addressOf({ hit: hit.id }));
  viewer.open(hit, shown.hits, { stems: shown.stems, index: indexName() });
}

/** Show what the address says, which is in the form: after a link was followed, and after back. */
async function followAddress({ like, hit } = readAddress()) {
  k = FIRST;
  try {
    likeHit = like ? await segment(like, indexName()) : null;
  } catch (error) {
    likeHit = null;
    complain(error);
    return;
  }
  if (!hit) viewer.close();
  await answer();
  if (!hit) return;
  const known = shown.hits.find((one) => one.id === hit);
  try {
    viewer.open(known ?? (await segment(hit, indexName())), shown.hits, { stems: shown.stems, index: indexName() });
  } catch (error) {
    complain(error);
  }
}

// ---------------------------------------------------------------- keys and buttons

function takeKeys() {
  addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || document.querySelector("dialog[open]")) return;
    const isTyping = event.target.closest("input:not([type=checkbox], [type=range]), select, textarea");
    if (event.key === "Escape" && event.target === words) {
      event.preventDefault(); // which would empty it
      words.blur();
      results.querySelector(".card")?.focus();
    } else if (event.key === "ArrowDown" && event.target === words) {
      event.preventDefault();
      results.querySelector(".card")?.focus();
    } else if (!isTyping && event.key === "/") {
      event.preventDefault();
      words.select();
    } else if (!isTyping && event.key === "?") byId("keys").showModal();
    else if (!isTyping && event.key === "f") {
      event.preventDefault();
      toggleFilters();
    }
    else if (!isTyping && event.key === "m") {
      const id = event.target.closest("li")?.querySelector(".card")?.dataset.id;
      const hit = shown.hits.find((one) => one.id === id);
      if (hit) askForLikes(hit);
    }
  });
}

function toggleFilters() {
  const panel = byId("filters");
  panel.hidden = !panel.hidden;
  byId("open-filters").setAttribute("aria-expanded", String(!panel.hidden));
  if (!panel.hidden) byId("negative").focus();
}

const THEMES = { auto: "Colours: as the system has them", light: "Colours: light", dark: "Colours: dark" };

function showTheme() {
  const theme = document.documentElement.dataset.theme ?? "auto";
  setIcon(byId("theme"), theme);
  byId("theme").querySelector("span").textContent = byId("theme").title = THEMES[theme];
}

function nextTheme() {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "auto") + 1) % names.length];
  if (next === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem("mmsearch-theme", next);
  } catch {
    // A browser that keeps nothing: the colours hold until the page is left.
  }
  showTheme();
}

async function showStatus() {
  const told = await status(indexName());
  const names = (told.indexes ?? []).map((one) => one.name ?? one);
  if (names.length > 1 && byId("which").hidden) {
    byId("index").replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    byId("which").hidden = false;
  }
  const held = heldBy(told);
  byId("holds").textContent = held ? `${held} to look through.` : "The index is empty: add files by the books at the top right.";
}

function listen() {
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    askAnew();
  });
  byId("filters").addEventListener("submit", (event) => {
    event.preventDefault();
    askAnew();
  });
  byId("filters").addEventListener("input", countFilters);
  byId("filters").addEventListener("change", (event) => (event.target.matches("[type=checkbox], [type=range]") && isAsking() ? askAnew() : null));
  byId("filters").addEventListener("reset", () => setTimeout(() => (countFilters(), isAsking() && askAnew())));
  for (const chip of document.querySelectorAll("[data-kind]")) {
    chip.addEventListener("click", () => {
      chip.setAttribute("aria-pressed", String(chip.getAttribute("aria-pressed") !== "true"));
      if (isAsking()) askAnew();
    });
  }
  byId("more").addEventListener("click", async () => {
    const before = shown.hits.length;
    k = Math.min(MOST, k + FIRST);
    await answer();
    results.querySelectorAll(".card")[before]?.focus();
  });
  byId("home").addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    media.parts = [];
    goTo("./");
    followAddress();
    words.focus();
  });
  byId("index").addEventListener("change", () => {
    showStatus().catch(complain);
    if (isAsking()) askAnew();
  });
  byId("open-filters").addEventListener("click", toggleFilters);
  byId("theme").addEventListener("click", nextTheme);
  byId("open-library").addEventListener("click", () => library.open(indexName()));
  byId("open-keys").addEventListener("click", () => byId("keys").showModal());
  for (const button of document.querySelectorAll("[data-close]")) button.addEventListener("click", () => button.closest("dialog").close());
  for (const sheet of document.querySelectorAll("dialog.sheet:not(#door)")) {
    sheet.addEventListener("click", (event) => event.target === sheet && sheet.close());
  }
  byId("door").addEventListener("cancel", (event) => event.preventDefault());
  byId("door-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await enter(byId("door-key").value);
      byId("door").close();
      byId("door-key").value = "";
      await start();
    } catch (error) {
      byId("door-trouble").textContent = error.message;
      byId("door-trouble").hidden = false;
    }
  });
  addEventListener("popstate", () => {
    media.parts = asked[history.state?.media] ?? [];
    followAddress();
  });
}

async function start() {
  const meant = readAddress(); // at once: what is typed meanwhile must not be lost
  try {
    await showStatus(); // it names the indexes, one of which the address may mean
    const index = new URLSearchParams(location.search).get("index");
    if (index) byId("index").value = index;
    await followAddress(meant);
  } catch (error) {
    complain(error);
  }
}

const library = new Library({ onChange: () => showStatus().catch(complain) });
listen();
takeKeys();
walkByArrows(results);
showTheme();
if (!matchMedia("(hover: none)").matches) words.focus();
start();
