// The image: dropped, chosen or an example; sent, read, described.

import { ApiError, forget, getJson, request } from "./api.js";
import { byId, make, plural, say, show } from "./dom.js";
import { filesOfDrop, mebibytes, sizeOf } from "./files.js";
import { clearNotices, notice, sentence, tell } from "./notices.js";
import { read, upload } from "./upload.js";

export class ImagePanel {
  /** `onImage(id, about)` is called when an image was read, `onGone()` when there is none any more. */
  constructor({ onImage, onGone }) {
    this.onImage = onImage;
    this.onGone = onGone;
    this.id = null;
    this.limits = null;
    for (const kind of ["files", "folder"]) {
      byId(`choose-${kind}`).addEventListener("click", () => byId(kind).click());
      byId(kind).addEventListener("change", ({ target }) => {
        const files = [...target.files];
        // The same files can be chosen again.
        target.value = "";
        this.take(files);
      });
    }
    byId("upload-cancel").addEventListener("click", () => this.stopping?.abort());
    byId("another").addEventListener("click", () => {
      this.clear();
      byId("choose-files").focus();
    });
    this._acceptDrops();
    addEventListener("pagehide", () => this.clear());
  }

  /** Offer the bundled examples; `onExample(texts)` is called with sentences that fit one. */
  async offerExamples(onExample) {
    const examples = new Map();
    for (const { image, text } of await getJson("/page/examples/examples.json")) {
      examples.set(image, [...(examples.get(image) ?? []), text]);
    }
    [...examples].forEach(([name, texts], n) => {
      const take = async () => {
        try {
          const blob = await (await request(`/page/examples/${name}`)).blob();
          onExample(texts);
          await this.take([blob]);
        } catch (error) {
          tell(error, take);
        }
      };
      byId("examples").append(make("button", { type: "button", onclick: take }, `phantom ${n + 1}`));
    });
  }

  /** Send files, and let the server read them. */
  async take(files) {
    if (files.length === 0 || this.stopping) return;
    this.clear();
    clearNotices();
    const why = this._tooLarge(files);
    if (why !== null) {
      notice("error", "Too large", `${why}; nothing was sent. Take one series only.`);
      return;
    }
    this.stopping = new AbortController();
    this._progress(0, sizeOf(files));
    show(true, "upload");
    show(false, "drop");
    say("Sending");
    try {
      const { id, skipped } = await upload(files, {
        signal: this.stopping.signal, onSent: (bytes, all) => this._progress(bytes, all), onRead: () => this._reading(),
      });
      this.id = id;
      this.skipped = skipped;
      await this._read();
    } catch (error) {
      this._failed(error, () => this.take(files));
    } finally {
      this.stopping = null;
      show(false, "upload");
      show(byId("about").hidden, "drop");
    }
  }

  /** Forget the image, here and on the server. */
  clear() {
    if (this.id !== null) forget(`/images/${this.id}`);
    this.id = null;
    show(false, "about");
    show(true, "drop");
    this.onGone();
  }

  async _read(series) {
    const about = await read(this.id, series, this.stopping?.signal);
    const volume = await (await request(`/images/${this.id}/volume.nii.gz`)).arrayBuffer();
    this._describe(about);
    say(byId("about-text").textContent);
    await this.onImage(this.id, about, volume);
  }

  _describe(about) {
    const [slices, rows, columns] = about.shape;
    const [step, down, across] = about.spacing.map((mm) => mm.toFixed(2));
    const pixels = down === across ? down : `${down} × ${across}`;
    const spacing = about.spacing_known ? `${pixels} mm pixels${slices > 1 ? `, ${step} mm between slices` : ""}` : "pixel size not known";
    byId("about-text").textContent = `${plural(slices, "slice")} of ${rows} × ${columns}, ${spacing}.`;
    const notes = [
      ...(about.side_known ? [] : ["Side not known: the image does not say which side is the patient's left."]),
      ...about.not_read.map((text) => `Incomplete, not read: ${text}`),
      ...(this.skipped > 0 ? [`${plural(this.skipped, "file")} left out: no images.`] : []),
      ...about.notes.map(sentence),
    ];
    byId("about-notes").replaceChildren(...notes.map((text) => make("li", {}, text)));
    show(true, "about");
    show(false, "drop");
    byId("side").hidden = about.side_known;
  }

  _failed(error, retry) {
    const several = error instanceof ApiError ? error.series : [];
    if (error.name === "AbortError") notice("info", "Canceled", "The image was not taken.");
    else if (this.id !== null && several.length > 1) this._choose(several);
    else tell(error, retry);
  }

  /** Return why the server would refuse files, else null: its answer may be lost where it closes the connection. */
  _tooLarge(files) {
    const { file_bytes: one, upload_bytes: all, files: count } = this.limits ?? {};
    if (files.length > count) return `${plural(files.length, "file")}, over the server's limit of ${count}`;
    if (sizeOf(files) > all) return `${mebibytes(sizeOf(files))}, over the server's limit of ${mebibytes(all)}`;
    const largest = Math.max(...files.map((file) => file.size));
    return largest > one ? `a file of ${mebibytes(largest)}, over the server's limit of ${mebibytes(one)}` : null;
  }

  _choose(several) {
    const actions = several.map(({ number, slices, rows, columns }) =>
      [`Series ${number}: ${plural(slices, "slice")} of ${rows} × ${columns}`, () => this._take(number)]);
    notice("info", "Several series", "Choose the one to ask about.", ...actions);
  }

  async _take(series) {
    clearNotices();
    try {
      await this._read(series);
    } catch (error) {
      this._failed(error, () => this._take(series));
    }
  }

  _progress(bytes, all) {
    byId("upload-text").textContent = `Sending: ${mebibytes(bytes)} of ${mebibytes(all)}`;
    byId("upload-bar").value = all === 0 ? 0 : bytes / all;
  }

  _reading() {
    byId("upload-text").textContent = "Reading the image";
    byId("upload-bar").removeAttribute("value");
    say("Reading the image");
  }

  _acceptDrops() {
    const over = (is) => byId("drop").classList.toggle("over", is);
    // Everywhere: a file that misses the field would else replace the page.
    addEventListener("dragover", (event) => { event.preventDefault(); over(true); });
    addEventListener("dragleave", () => over(false));
    addEventListener("drop", async (event) => {
      event.preventDefault();
      over(false);
      this.take(await filesOfDrop(event.dataTransfer));
    });
  }
}
