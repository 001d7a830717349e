// Asking: a job from the sentences to the results, and what else can come of it.

import { byId, focusIsGone, make, plural, say, show } from "./dom.js";
import { showDownloads } from "./downloads.js";
import { CanceledError, JobError, ask, cancel, follow, resultsOf } from "./job.js";
import { clearNotices, notice, sentence, tell } from "./notices.js";
import { Results } from "./results.js";

export class AnswerPanel {
  /**
   * Args: the page's sentences; `model()`, which names the model; `onResults(results, volumes)`, called with what was found;
   * `onGone()`, when it is not shown any more; `onJump(slice, sentence)`.
   */
  constructor({ sentences, model, onResults, onGone, onJump }) {
    Object.assign(this, { sentences, model, onResults, onGone, onJump });
    this.image = null;
    this.job = null;
    this.results = null;
    byId("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    byId("cancel").addEventListener("click", () => this.cancel());
  }

  /** A new image, or none: answers of the old one go. */
  reset(image) {
    this.cancel();
    this.image = image;
    this._clear();
    show(true, "none-yet");
  }

  cancel() {
    this.canceling = true;
    if (this.job !== null) cancel(this.job).catch(() => {});
  }

  /** Ask all sentences about the image. */
  async ask() {
    if (this.busy) return;
    clearNotices();
    const { image } = this;
    const rows = this.sentences.asked;
    if (image === null) {
      notice("info", "No image yet", "Take an image first: drop one, choose files, or take an example.");
      return;
    }
    if (rows.length === 0) {
      notice("info", "No sentence yet", "Type which lesion to outline, e.g. “the cyst in the left lobe”.");
      this.sentences.rows[0].input.focus();
      return;
    }
    // Old outlines would be taken for the answer to new sentences.
    this._clear();
    this._busy(true);
    try {
      if (await this._understood(rows)) await this._run(rows);
    } catch (error) {
      if (this.image === image) this._failed(error, rows);
    } finally {
      this._busy(false);
    }
  }

  /** Return whether all sentences are understood; else say which are not. */
  async _understood(rows) {
    const readings = await Promise.all(rows.map((row) => row.read()));
    const refused = rows.filter((_, n) => readings[n].understood === "no");
    if (refused.length === 0) return true;
    const numbers = refused.map((row) => this.sentences.rows.indexOf(row) + 1).join(", ");
    const title = `Not understood: ${refused.length > 1 ? "sentences" : "sentence"} ${numbers}`;
    notice("error", title, "Nothing was computed. Change it as told under the sentence, or remove it.");
    refused[0].input.focus();
    return false;
  }

  async _run(rows) {
    const { image } = this;
    this.canceling = false;
    this._progress(0, 0);
    this.job = await ask(image, this.model(), rows.map((row) => row.text));
    if (this.canceling) this.cancel();
    const asked = rows.map((row) => ({
      text: row.text, color: row.color, number: this.sentences.rows.indexOf(row) + 1, row, shown: () => row.shown.checked,
    }));
    await follow(this.job, (done, total) => this._progress(done, total));
    const job = this.job;
    byId("work-text").textContent = "Getting the masks";
    const { results, files, volumes } = await resultsOf(job, rows.length);
    if (this.image !== image) return;
    await this._show(job, asked, results, files, volumes);
  }

  async _show(job, asked, results, files, volumes) {
    const found = new Results(asked, results);
    this._shown(found);
    await this.onResults(found, volumes);
    found.show(this.onJump);
    const largest = found.found.reduce((a, b) => (a === null || b.pixels > a.pixels ? b : a), null);
    const failed = (error, retry) => tell(error, retry);
    showDownloads(job, files, results.not_written, largest?.overlay ?? null, failed);
    this._outcome(found);
  }

  _clear() {
    clearNotices();
    show(false, "results");
    this._shown(null);
    this.onGone();
  }

  /** Results are shown, or none: rows have a switch while they have outlines. */
  _shown(results) {
    this.results = results;
    const rows = new Set(results?.asked.map((one) => one.row));
    for (const row of this.sentences.rows) row.element.classList.toggle("answered", rows.has(row));
  }

  _outcome(found) {
    show(false, "none-yet");
    const { warnings } = found;
    if (found.found.length === 0) {
      notice("nothing", "Nothing found", "The model can miss a lesion: look yourself.");
    } else {
      clearNotices();
      say(`Found in ${plural(found.foundSlices.length, "slice")}. The table lists them.`);
    }
    if (warnings.length > 0) {
      const list = make("ul", { className: "notes" }, ...warnings.map((text) => make("li", {}, text)));
      byId("notices").append(make("div", { className: "notice error" }, make("strong", {}, "Not complete"), list));
    }
  }

  _failed(error, rows) {
    if (error instanceof CanceledError) {
      const { done, total } = this.progress;
      notice("info", "Canceled", `After ${done} of ${plural(total, "slice")}; nothing of it is kept.`);
    } else if (error instanceof JobError && error.kind === "SentenceNotUnderstoodError") {
      notice("error", "Not understood", sentence(error.message));
      rows[0].input.focus();
    } else {
      tell(error, () => this.ask());
    }
  }

  _progress(done, total) {
    const before = this.progress;
    this.progress = { done, total };
    const bar = byId("work-bar");
    if (total === 0) bar.removeAttribute("value");
    else bar.value = done / total;
    byId("work-text").textContent = total === 0 ? "Waiting for a place" : `Slice ${done} of ${total}`;
    // A screen reader hears quarters, not every slice.
    const quarter = (p) => (p.total === 0 ? -1 : Math.floor((4 * p.done) / p.total));
    if (before === undefined || quarter(before) !== quarter(this.progress)) say(byId("work-text").textContent);
  }

  _busy(busy) {
    this.busy = busy;
    if (!busy) this.job = null;
    show(busy, "work");
    byId("submit").disabled = busy;
    if (busy) {
      show(false, "none-yet");
      byId("work-text").textContent = "Reading the sentences";
      byId("work-bar").removeAttribute("value");
    } else if (focusIsGone()) {
      // The focus was on Cancel, which is gone.
      byId("submit").focus();
    }
  }
}
