// The hits as cards: what each looks like, where it is, and what its score is made of.

import { mediaOf } from "./api.js";
import { icon, make, marked, placeOf, snippet, splitPath } from "./make.js";

/** The parts of a score, in the order they are drawn, and what people call them. */
export const SIGNALS = [
  ["visual", "looks", "what it shows"],
  ["text", "meaning", "what its words mean"],
  ["words", "words", "your words, found in it"],
];

// Beside a hit that is surely one, those that hardly are have their picture drawn fainter.
const SURELY = 0.1;
const HARDLY = 0.03;

/** Return a bar as long as the score, cut into its parts. */
export function scoreBar(hit) {
  const said = SIGNALS.filter(([name]) => hit.parts?.[name]).map(([name, label]) => `${label} ${hit.parts[name].toFixed(2)}`);
  const bar = make("span", { class: "score-bar", role: "img", "aria-label": `Score ${hit.score.toFixed(2)}: ${said.join(", ")}` });
  for (const [name] of SIGNALS) {
    const part = hit.parts?.[name] ?? 0;
    if (part <= 0) continue;
    const piece = make("span", { class: name });
    piece.style.width = `${Math.min(100, part * 100)}%`;
    bar.append(piece);
  }
  return bar;
}

/** Return the picture of a card; what has none, or lost it, shows its words. */
function faceOf(hit, stems, index) {
  const words = () => make("p", { class: "passage" }, marked(snippet(hit.text, stems, 320), stems));
  if (hit.kind === "text") return words();
  const picture = make("img", { src: hit.thumbnail ?? mediaOf(hit.id, "thumbnail", index), alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(words()), { once: true });
  return picture;
}

function card(hit, isFaint, { stems, index, onOpen, onLike, hrefOf }) {
  const { folder, name } = splitPath(hit.path);
  const place = placeOf(hit);
  const link = make(
    "a",
    {
      class: "card", href: hrefOf(hit), "data-id": hit.id,
      onclick(event) {
        if (event.metaKey || event.ctrlKey || event.shiftKey || event.button) return;
        event.preventDefault();
        onOpen(hit);
      },
    },
    make("span", { class: `face ${hit.kind}` }, faceOf(hit, stems, index),
      hit.start !== undefined ? make("span", { class: "moment" }, place) : null),
    scoreBar(hit),
    make("span", { class: "name" }, icon(hit.kind), make("span", { class: "file", title: hit.path }, name),
      hit.page !== undefined ? make("span", { class: "page" }, `p.\u2009${hit.page}`) : null),
    make("span", { class: "under" }, make("span", { class: "folder" }, folder.split("/").slice(-2).join("/")),
      make("span", { class: "score" }, hit.score.toFixed(2))),
    hit.kind !== "text" && hit.text.trim() ? make("span", { class: "snippet" }, marked(snippet(hit.text, stems), stems)) : null,
  );
  const like = make("button", { type: "button", class: "like tool", title: "More like this (m)", onclick: () => onLike(hit) },
    icon("like"), make("span", { class: "unseen" }, `More like ${name}${place ? `, ${place}` : ""}`));
  return make("li", { class: isFaint ? "hardly" : null }, link, like);
}

/** Fill a list with the cards of hits. */
export function showHits(list, hits, options) {
  const isSure = hits.length && hits[0].score >= SURELY;
  list.replaceChildren(...hits.map((hit) => card(hit, isSure && hit.score < HARDLY, options)));
}

/** Let the arrow keys go from card to card, up and down by where they are on the screen. */
export function walkByArrows(list) {
  list.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const cards = [...list.querySelectorAll(".card")];
    const here = cards.indexOf(event.target.closest("li")?.querySelector(".card"));
    if (here < 0) return;
    const to = { ArrowRight: here + 1, ArrowLeft: here - 1, Home: 0, End: cards.length - 1 }[event.key] ?? above(cards, here, event.key);
    if (to === undefined) return;
    event.preventDefault();
    cards[Math.max(0, Math.min(cards.length - 1, to))].focus();
  });
}

function above(cards, here, key) {
  if (key !== "ArrowUp" && key !== "ArrowDown") return undefined;
  const box = cards[here].getBoundingClientRect();
  const columns = cards.filter((card) => Math.abs(card.getBoundingClientRect().top - box.top) < 4).length || 1;
  return key === "ArrowDown" ? here + columns : here - columns;
}
