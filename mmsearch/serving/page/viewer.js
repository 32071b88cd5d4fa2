// One hit, whole: the page or picture large, the film at its moment, the passage with its words.

import { mediaOf } from "./api.js";
import { SIGNALS, scoreBar } from "./grid.js";
import { byId, clock, count, icon, make, marked, placeOf, setIcon, splitPath } from "./make.js";

const NOUN = { pdf: "page", image: "picture", video: "film", text: "text" };
const LARGE_PIXELS = 4_000_000; // of a page that is looked at closely
const FITTED_PIXELS = 1_600_000;

/** The dialog that shows hits: open one, walk to its neighbours, close. */
export class Viewer {
  #hits = [];
  #at = 0;
  #options;

  /** options: onLike(hit), onMove(hit | null) when another hit or none is shown */
  constructor(options) {
    this.#options = options;
    this.dialog = byId("viewer");
    byId("viewer-prev").addEventListener("click", () => this.step(-1));
    byId("viewer-next").addEventListener("click", () => this.step(1));
    byId("viewer-close").addEventListener("click", () => this.dialog.close());
    this.dialog.addEventListener("click", (event) => event.target === this.dialog && this.dialog.close());
    this.dialog.addEventListener("close", () => {
      byId("stage").replaceChildren(); // a film must not go on playing
      this.#options.onMove(null, this.#hits[this.#at]);
    });
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
  }

  get isOpen() {
    return this.dialog.open;
  }

  /** Show one of these hits; stems mark the question's words in its text. */
  open(hit, hits, { stems, index }) {
    this.#hits = hits.some((one) => one.id === hit.id) ? hits : [hit];
    this.#at = this.#hits.findIndex((one) => one.id === hit.id);
    Object.assign(this, { stems, index });
    this.#show();
    if (!this.dialog.open) this.dialog.showModal();
    byId("viewer-close").focus();
  }

  /** Show the hit so many places further, where there is one. */
  step(by) {
    const to = this.#at + by;
    if (to < 0 || to >= this.#hits.length) return;
    this.#at = to;
    this.#show();
    this.#options.onMove(this.#hits[to]);
  }

  close() {
    if (this.dialog.open) this.dialog.close();
  }

  #key(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("video, input")) return;
    const acts = {
      ArrowLeft: () => this.step(-1),
      ArrowRight: () => this.step(1),
      m: () => this.#options.onLike(this.#hits[this.#at]),
      z: () => byId("stage").querySelector(".sheet-of")?.click(),
      r: () => this.replay?.(),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  #show() {
    const hit = this.#hits[this.#at];
    const { name } = splitPath(hit.path);
    setIcon(this.dialog, hit.kind);
    byId("viewer-title").textContent = name;
    byId("viewer-where").textContent = placeOf(hit);
    byId("viewer-place").textContent = this.#hits.length > 1 ? `${this.#at + 1} of ${this.#hits.length}` : "";
    byId("viewer-prev").disabled = this.#at === 0;
    byId("viewer-next").disabled = this.#at === this.#hits.length - 1;
    this.replay = undefined;
    const stage = byId("stage");
    stage.className = `stage ${hit.kind}`;
    stage.replaceChildren(...this.#stageOf(hit, name));
    byId("side").replaceChildren(...this.#sideOf(hit));
    byId("side").scrollTop = 0;
  }

  #stageOf(hit, name) {
    if (hit.kind === "text") return [make("article", { class: "reading", tabindex: "0" }, marked(hit.text, this.stems))];
    if (hit.kind === "video") return this.#film(hit, name);
    return [this.#sheet(hit, name)];
  }

  /** A page or a picture: as large as fits, and at full size when it is pressed. */
  #sheet(hit, name) {
    const address = (pixels) => `${mediaOf(hit.id, "picture", this.index)}${this.index ? "&" : "?"}max_pixels=${pixels}`;
    const alt = `${name}${hit.page === undefined ? "" : `, page ${hit.page}`}`;
    const picture = make("img", { src: address(FITTED_PIXELS), alt, decoding: "async" });
    const button = make("button", { type: "button", class: "sheet-of", "aria-pressed": "false", title: "Full size (z)" }, picture);
    button.addEventListener("click", () => {
      const isLarge = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isLarge));
      if (isLarge) picture.src = address(LARGE_PIXELS);
    });
    picture.addEventListener("error", () => button.replaceWith(this.#gone(hit, name)), { once: true });
    return button;
  }

  /** A film that begins at the hit's moment, with a strip that shows where that lies. */
  #film(hit, name) {
    const film = make("video", {
      controls: true, playsinline: true, preload: "metadata",
      poster: mediaOf(hit.id, "thumbnail", this.index), "aria-label": `${name}, from ${clock(hit.start)}`,
      src: mediaOf(hit.id, "file", this.index),
    });
    const strip = make("div", { class: "strip", role: "group", "aria-label": "Moments of this film that were found" });
    const playFrom = (start) => {
      film.currentTime = start;
      film.play().catch(() => {}); // a browser may want a press first; the film stands at the moment
    };
    this.replay = () => playFrom(hit.start);
    film.addEventListener("loadedmetadata", () => {
      playFrom(hit.start);
      const moments = this.#hits.filter((one) => one.path === hit.path && one.start !== undefined);
      for (const one of moments) {
        const span = make("button", {
          type: "button", class: one.id === hit.id ? "span here" : "span", title: `${placeOf(one)}, score ${one.score.toFixed(2)}`,
          onclick: () => playFrom(one.start),
        }, make("span", { class: "unseen" }, `Play ${placeOf(one)}`));
        span.style.left = `${(100 * one.start) / film.duration}%`;
        span.style.width = `${(100 * (Math.min(one.end, film.duration) - one.start)) / film.duration}%`;
        strip.append(span);
      }
    }, { once: true });
    const box = make("div", { class: "film" }, film, strip);
    film.addEventListener("error", () => box.replaceWith(this.#still(hit, name)), { once: true });
    return [box];
  }

  /** What is left of a film that this browser cannot play. */
  #still(hit, name) {
    const picture = make("img", { src: mediaOf(hit.id, "picture", this.index), alt: `${name} at ${clock(hit.start)}` });
    const still = make("div", { class: "film" }, picture, make("p", { class: "note" }, "This browser cannot play the film; this is the middle of the moment."));
    picture.addEventListener("error", () => still.replaceWith(this.#gone(hit, name)), { once: true });
    return still;
  }

  #gone(hit, name) {
    return make("div", { class: "gone" },
      make("img", { src: mediaOf(hit.id, "thumbnail", this.index), alt: "" }),
      make("p", {}, `${name} cannot be read any more; this is what the index kept of it.`));
  }

  #sideOf(hit) {
    const acts = make("div", { class: "acts" },
      make("button", { type: "button", class: "go", onclick: () => this.#options.onLike(hit) }, icon("like"), "More like this"));
    if (hit.start !== undefined) {
      acts.append(make("button", { type: "button", class: "plain", onclick: () => this.replay?.() }, icon("again"), `From ${clock(hit.start)}`));
    }
    const at = hit.page !== undefined ? `#page=${hit.page}` : hit.start !== undefined ? `#t=${hit.start}` : "";
    acts.append(make("a", { class: "plain", href: mediaOf(hit.id, "file", this.index) + at, target: "_blank", rel: "noopener" }, icon("open"), "Open the file"));

    const made = [acts];
    if (hit.score !== undefined) made.push(this.#scoreOf(hit));
    const { folder } = splitPath(hit.path);
    made.push(make("section", {}, make("h3", {}, "Where"),
      make("p", { class: "path" }, folder, "/", make("wbr"), make("b", {}, splitPath(hit.path).name)),
      make("button", { type: "button", class: "plain small", onclick: (event) => copy(hit.path, event.currentTarget) }, icon("copy"), make("span", {}, "Copy the path"))));
    if (hit.text.trim() && hit.kind !== "text") {
      const words = count(hit.text.trim().split(/\s+/u).length, "word");
      made.push(make("section", {}, make("h3", {}, `Words in this ${hit.kind === "video" ? "moment" : NOUN[hit.kind]} `, make("small", {}, words)),
        make("p", { class: "words" }, marked(hit.text, this.stems))));
    }
    return made;
  }

  #scoreOf(hit) {
    const rows = SIGNALS.map(([name, label, meaning]) => {
      const part = hit.parts?.[name];
      const bar = make("span", { class: "track", "aria-hidden": "true" }, make("span", { class: name }));
      bar.firstChild.style.width = `${Math.min(100, (part ?? 0) * 100)}%`;
      return make("div", { class: part === undefined ? "none" : "" },
        make("dt", {}, label, make("small", {}, meaning)), make("dd", {}, bar, make("span", {}, part === undefined ? "–" : part.toFixed(2))));
    });
    return make("section", { class: "made-of" },
      make("h3", {}, "Score ", make("b", {}, hit.score.toFixed(2))), scoreBar(hit), make("dl", {}, ...rows));
  }
}

async function copy(path, button) {
  const told = button.querySelector("span");
  try {
    await navigator.clipboard.writeText(path);
    told.textContent = "Copied";
  } catch {
    told.textContent = "The browser does not allow it";
  }
  setTimeout(() => (told.textContent = "Copy the path"), 1600);
}
