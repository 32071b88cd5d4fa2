// What a question is asked with beside its words: files that are dropped, pasted or chosen.
//
//   drop, paste, choice -> {file, kind, page} -> a chip each, in the search box
//
// Of a PDF one page is asked with; its chip says which, and takes another.

import { byId, icon, make } from "./make.js";

const MOST = 99_999; // pages

/** Return what a file can be asked with as: a picture, a film, a page of a PDF, or null. */
function kindOf(file) {
  if (file.type === "application/pdf") return "pdf";
  return file.type.match(/^(image|video)\//u)?.[1] ?? null;
}

/** The files of a question. ``parts`` is never changed in place: back and forward keep those of each question. */
export class Media {
  parts = [];
  #drawn = null;
  #onChange;
  #onRefused;

  constructor({ onChange, onRefused }) {
    [this.#onChange, this.#onRefused] = [onChange, onRefused];
    this.#takeDrops();
    addEventListener("paste", (event) => {
      const files = event.clipboardData?.files ?? [];
      if (!files.length || document.querySelector("dialog[open]")) return;
      event.preventDefault();
      this.#add(files);
    });
    byId("file").addEventListener("change", (event) => {
      const files = [...event.target.files];
      event.target.value = "";
      this.#add(files);
    });
  }

  /** Draw the chips of what is in the question now. */
  show() {
    if (this.#drawn === this.parts) return;
    this.#drawn = this.parts;
    byId("media").replaceChildren(...this.parts.map((part) => this.#chip(part)));
    byId("words").placeholder = this.parts.length ? "and in words?" : "Describe a page, a picture or a moment";
  }

  #add(files) {
    const taken = [...files].filter(kindOf).map((file) => ({ file, kind: kindOf(file), page: 1 }));
    if (taken.length) {
      this.parts = [...this.parts, ...taken];
      this.#onChange();
    } else if (files.length) this.#onRefused();
  }

  #chip(part) {
    const { file, kind } = part;
    const name = file.name || "the pasted picture";
    const drop = () => {
      this.parts = this.parts.filter((one) => one.file !== file);
      byId("words").focus();
      this.#onChange();
    };
    return make("li", { title: name, class: kind }, kind === "image" ? picture(file) : icon(kind), kind === "pdf" ? this.#pageOf(part) : null,
      make("button", { type: "button", title: "Take it out", onclick: drop }, icon("close"), make("span", { class: "unseen" }, `Take out ${name}`)));
  }

  #pageOf({ file, page }) {
    const turn = ({ target }) => {
      const wanted = Math.min(Math.max(Math.trunc(Number(target.value)) || 1, 1), MOST);
      target.value = wanted;
      this.parts = this.parts.map((one) => (one.file === file ? { ...one, page: wanted } : one));
      this.#drawn = this.parts; // the chip stays, and who steps through pages stays in it
      this.#onChange();
    };
    return make("input", { type: "number", min: 1, max: MOST, value: page, title: "Its page", "aria-label": `Page of ${file.name}`, onchange: turn });
  }

  #takeDrops() {
    const veil = byId("drop");
    const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
    addEventListener("dragover", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      veil.hidden = false;
    });
    addEventListener("dragleave", (event) => (veil.hidden = !event.relatedTarget ? true : veil.hidden));
    addEventListener("drop", (event) => {
      veil.hidden = true;
      if (!holdsFiles(event)) return;
      event.preventDefault();
      this.#add(event.dataTransfer.files);
    });
  }
}

function picture(file) {
  const address = URL.createObjectURL(file);
  const release = () => URL.revokeObjectURL(address);
  return make("img", { src: address, alt: file.name || "pasted picture", onload: release, onerror: release });
}
