// What is in the index, and files put into it while one looks on.

import { job, jobEvents, startIndexing, status, stopJob } from "./api.js";
import { byId, clock, count, make, size } from "./make.js";

const NOUNS = { pdf: ["PDF", "PDFs"], image: ["picture", "pictures"], video: ["film", "films"], text: ["text", "texts"] };

/** Return "12 PDFs, 46 pictures and 9 films" of a status. */
export function heldBy(told) {
  const held = Object.keys(NOUNS).filter((kind) => told.documents?.[kind]).map((kind) => count(told.documents[kind], ...NOUNS[kind]));
  return new Intl.ListFormat("en-GB").format(held);
}

/** The dialog of the index: its numbers, files that failed, and the form that adds some. */
export class Library {
  #index;
  #job;
  #onChange;

  constructor({ onChange }) {
    this.#onChange = onChange;
    byId("add").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#add(byId("add-path").value.trim());
    });
    byId("job-stop").addEventListener("click", () => this.#job && stopJob(this.#job).catch((error) => this.#say(error)));
  }

  async open(index) {
    this.#index = index;
    byId("library").showModal();
    await this.#refresh();
  }

  async #refresh() {
    let told;
    try {
      told = await status(this.#index);
    } catch (error) {
      this.#say(error);
      return;
    }
    const rows = [
      ["Holds", heldBy(told) || "nothing yet"],
      ["Segments", `${(told.segments ?? 0).toLocaleString("en")} pages, pictures, moments and passages`],
      ["Model", `${told.model}, ${told.dims} dimensions`],
      ["On disk", size(told.bytes ?? 0)],
      told.awaits_ocr ? ["Unread", `${count(told.awaits_ocr, "file")} with words in pictures still to be read`] : null,
    ];
    byId("numbers").replaceChildren(...rows.filter(Boolean).map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
    const roots = told.roots ?? [];
    byId("add").hidden = !roots.length;
    byId("no-roots").hidden = Boolean(roots.length);
    byId("roots").replaceChildren(...roots.map((root) => make("option", { value: root })));
    byId("add-path").placeholder = roots[0] ?? "";
    const failed = told.failed ?? [];
    byId("failed").hidden = !failed.length;
    byId("failed").querySelector("h3").textContent = `${count(told.num_failed ?? failed.length, "file")} could not be read`;
    byId("failed").querySelector("ul").replaceChildren(
      ...failed.slice(0, 100).map((one) => make("li", {}, make("span", { class: "path" }, one.path), make("small", {}, one.reason))));
  }

  async #add(path) {
    byId("add-trouble").hidden = true;
    try {
      this.#job = (await startIndexing(path, this.#index)).job;
    } catch (error) {
      this.#say(error);
      return;
    }
    this.#watch(path);
  }

  /** Follow a job by its events; where the stream breaks off, ask how it stands. */
  #watch(path) {
    const [told, bar] = [byId("job-told"), byId("job-done")];
    byId("job").hidden = false;
    byId("job-stop").hidden = false;
    told.textContent = `Looking at ${path}`;
    bar.removeAttribute("value");
    const events = jobEvents(this.#job);
    const show = (state) => {
      const { num_done: done, num_documents: all, eta_s: eta } = state.progress ?? {};
      if (all) [bar.max, bar.value] = [all, done];
      if (all) told.textContent = `${done} of ${count(all, "file")}${eta ? `, about ${clock(eta)} left` : ""}`;
    };
    const finish = (state) => {
      events.close();
      byId("job-stop").hidden = true;
      bar.max = bar.value = 1;
      told.textContent = outcome(state);
      this.#refresh();
      this.#onChange();
    };
    const take = (event) => {
      const state = JSON.parse(event.data);
      if (isOver(state)) finish(state);
      else show(state);
    };
    for (const name of ["message", "progress", "done", "end"]) events.addEventListener(name, take);
    events.addEventListener("error", async (event) => {
      if (event.data !== undefined || events.readyState !== EventSource.CLOSED) return;
      try {
        const state = await job(this.#job);
        if (isOver(state)) finish(state);
      } catch (error) {
        this.#say(error);
      }
    });
  }

  #say(error) {
    const box = byId("add-trouble");
    box.textContent = [error.message, error.hint].filter(Boolean).join(" — ");
    box.hidden = false;
  }
}

const isOver = (state) => ["done", "failed", "cancelled"].includes(state.status);

function outcome(state) {
  if (state.status === "cancelled") return "Stopped; what was finished is in the index.";
  if (state.status === "failed") return state.error?.message ?? "It failed.";
  const report = state.report ?? {};
  const failed = report.failed?.length ? `; ${count(report.failed.length, "file")} could not be read` : "";
  return `${count(report.documents ?? 0, "file")} read, ${report.skipped ?? 0} unchanged, ${report.removed ?? 0} removed${failed}.`;
}
