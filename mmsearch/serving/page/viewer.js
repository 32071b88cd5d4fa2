// One hit, whole: the page or picture large, the film at its moment, the passage with its words.

import { mediaOf, pagesOf, wordsOf } from "./api.js";
import { SIGNALS, scoreBar } from "./grid.js";
import { byId, clock, count, icon, isAsked, make, marked, placeOf, setIcon, splitPath } from "./make.js";

const NOUN = { pdf: "page", image: "picture", video: "film", text: "text" };
const LARGE_PIXELS = 4_000_000; // of a page that is looked at closely
const FITTED_PIXELS = 1_600_000;
const WORD = /[\p{L}\p{N}]+/gu;
const PAGES_AROUND = 30; // of a file whose page is shown, before it and after

/** The dialog that shows hits: open one, walk to its neighbours, close. */
export class Viewer {
  #hits = [];
  #at = 0;
  #shown;
  #pages = []; // of the file that is shown, around its page
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
      m: () => this.#options.onLike(this.#shown),
      z: () => byId("stage").querySelector(".sheet-of")?.click(),
      r: () => this.replay?.(),
      PageUp: () => this.#turn(-1),
      PageDown: () => this.#turn(1),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  /** Show a hit, or another page of its file, which need not be one. */
  #show(hit = this.#hits[this.#at]) {
    this.#shown = hit;
    const { name } = splitPath(hit.path);
    setIcon(this.dialog, hit.kind);
    byId("viewer-title").textContent = name;
    byId("viewer-where").textContent = placeOf(hit);
    const isHit = this.#hits.some((one) => one.id === hit.id);
    byId("viewer-place").textContent = isHit && this.#hits.length > 1 ? `${this.#at + 1} of ${this.#hits.length}` : "";
    byId("viewer-prev").disabled = this.#at === 0;
    byId("viewer-next").disabled = this.#at === this.#hits.length - 1;
    this.replay = undefined;
    const stage = byId("stage");
    stage.className = `stage ${hit.kind}`;
    stage.replaceChildren(...this.#stageOf(hit, name));
    byId("side").replaceChildren(...this.#sideOf(hit));
    byId("side").scrollTop = 0;
    this.#showPages(hit);
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
    const picture = make("img", { src: mediaOf(hit.id, "thumbnail", this.index), class: "soft", alt });
    const show = (pixels) => {
      const whole = make("img", { src: address(pixels) }); // shown once it is here: until then the thumbnail is
      whole.addEventListener("load", () => {
        picture.src = whole.src;
        picture.classList.remove("soft");
      });
      whole.addEventListener("error", () => button.replaceWith(this.#gone(hit, name)));
    };
    const button = make("button", { type: "button", class: "sheet-of", "aria-pressed": "false", title: "Full size (z)" }, picture);
    button.addEventListener("click", () => {
      const isLarge = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(isLarge));
      if (isLarge) show(LARGE_PIXELS);
    });
    show(FITTED_PIXELS);
    if (hit.kind === "pdf" && this.stems.length) this.#markWords(hit, button, picture);
    return button;
  }

  /** Mark the question's words on a page, where its file says where they stand. */
  async #markWords(hit, button, picture) {
    const told = await wordsOf(hit.id, this.index).catch(() => null); // a scan has none, nor a file that is gone
    const asked = told?.words.filter(([text]) => text.match(WORD)?.some((word) => isAsked(word, this.stems))) ?? [];
    if (!asked.length || !button.isConnected) return;
    const marks = make("span", { class: "marks", "aria-hidden": "true" });
    for (const [, left, top, right, bottom] of asked) {
      const mark = make("span", {});
      Object.assign(mark.style, { left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%` });
      marks.append(mark);
    }
    button.append(marks);
    const lay = () => {
      marks.hidden = picture.classList.contains("soft"); // whose frame is not that of the page
      Object.assign(marks.style, { left: `${picture.offsetLeft}px`, top: `${picture.offsetTop}px`, width: `${picture.offsetWidth}px`, height: `${picture.offsetHeight}px` });
    };
    new ResizeObserver(lay).observe(picture);
    picture.addEventListener("load", lay);
    lay();
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

  /** Lay out the pages around the one that is shown, those that were found marked. */
  async #showPages(hit) {
    const strip = byId("pages");
    if (hit.page === undefined || !hit.document) {
      this.#pages = [];
      strip.replaceChildren();
      return;
    }
    if (!this.#pages.some((one) => one.id === hit.id)) {
      strip.replaceChildren();
      const told = await pagesOf(hit.document, Math.max(0, hit.page - 1 - PAGES_AROUND), 2 * PAGES_AROUND + 1, this.index).catch(() => null);
      if (this.#shown !== hit) return; // one has gone on meanwhile
      this.#pages = told?.segments ?? [];
    }
    if (this.#pages.length < 2) return strip.replaceChildren();
    if (strip.children.length !== this.#pages.length || strip.firstChild.dataset.id !== this.#pages[0].id) {
      strip.replaceChildren(...this.#pages.map((page) => make("button", { type: "button", "data-id": page.id, onclick: () => this.#goTo(page) },
        make("img", { src: mediaOf(page.id, "thumbnail", this.index), alt: "", loading: "lazy" }),
        make("span", {}, make("span", { class: "unseen" }, "Page "), String(page.page)))));
    }
    const found = new Map(this.#hits.map((one) => [one.id, one]));
    for (const button of strip.children) {
      const { id } = button.dataset;
      button.classList.toggle("found", found.has(id));
      const score = found.get(id)?.score;
      button.title = score === undefined ? "" : `Found, score ${score.toFixed(2)}`;
      button.style.setProperty("--sure", score ?? 0); // how strongly it is marked
      if (id === hit.id) button.setAttribute("aria-current", "page");
      else button.removeAttribute("aria-current");
    }
    const here = strip.querySelector("[aria-current]");
    if (here) strip.scrollLeft = here.offsetLeft - strip.clientWidth / 2 + here.offsetWidth / 2;
  }

  #turn(by) {
    const to = this.#pages[this.#pages.findIndex((one) => one.id === this.#shown.id) + by];
    if (to) this.#goTo(to);
  }

  #goTo(page) {
    const at = this.#hits.findIndex((one) => one.id === page.id);
    if (at >= 0) this.#at = at;
    this.#show(at >= 0 ? this.#hits[at] : page);
    this.#options.onMove(this.#shown);
  }

  #sideOf(hit) {
    const acts = make("div", { class: "acts" },
      make("button", { type: "button", class: "go", onclick: () => this.#options.onLike(hit) }, icon("like"), "More like this"));
    if (hit.start !== undefined) {
      acts.append(make("button", { type: "button", class: "plain", onclick: () => this.replay?.() }, icon("again"), `From ${clock(hit.start)}`));
    }
    const at = hit.page !== undefined ? `#page=${hit.page}` : hit.start !== undefined ? `#t=${hit.start}` : "";
    if (hit.file) acts.append(make("a", { class: "plain", href: mediaOf(hit.id, "file", this.index) + at, target: "_blank", rel: "noopener" }, icon("open"), "Open file"));

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
