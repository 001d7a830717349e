// The sentences: rows with a color, a switch, the text and how the model reads it.

import { post } from "./api.js";
import { COLORS } from "./colors.js";
import { byId, make } from "./dom.js";
import { marked, readingOf } from "./reading.js";

const PAUSE_MS = 250;

export class Sentences {
  /** `model()` names the model; `onSwitch(row)` is called when a row is switched on or off, `onChange()` when rows change. */
  constructor({ model, onSwitch, onChange }) {
    this.model = model;
    this.onSwitch = onSwitch;
    this.onChange = onChange;
    this.rows = [];
  }

  /** Add a row, and return it; the last of all that there can be has no successor. */
  add(text = "") {
    const row = new Row(this, this._freeColor());
    this.rows.push(row);
    byId("rows").append(row.element);
    row.text = text;
    this._renumber();
    return row;
  }

  remove(row) {
    if (this.rows.length === 1) {
      row.text = "";
    } else {
      const at = this.rows.indexOf(row);
      this.rows.splice(at, 1);
      row.element.remove();
      this.rows[Math.min(at, this.rows.length - 1)].input.focus();
    }
    this._renumber();
    this.onChange();
  }

  /** Replace all rows by one. */
  set(text) {
    for (const row of this.rows.splice(1)) row.element.remove();
    this.rows[0].text = text;
    this._renumber();
  }

  /** Return the rows that say something, each sentence once. */
  get asked() {
    const seen = new Set();
    const isNew = ({ text }) => text !== "" && !seen.has(text) && seen.add(text);
    return this.rows.filter(isNew);
  }

  /** Put a word where the user types. */
  insert(word) {
    (this.last ?? this.rows[0]).insert(word);
  }

  /** Read all rows anew: another model may know other words. */
  readAgain() {
    for (const row of this.rows) row.read();
  }

  _freeColor() {
    const used = new Set(this.rows.map((row) => row.color));
    return COLORS.findIndex((_, color) => !used.has(color));
  }

  _renumber() {
    this.rows.forEach((row, n) => row.number(n + 1));
    byId("add").disabled = this.rows.length === COLORS.length;
  }
}

class Row {
  constructor(sentences, color) {
    this.sentences = sentences;
    this.color = color;
    this.reading = null;
    const id = `sentence-${Row.made = (Row.made ?? 0) + 1}`;
    this.swatch = make("span", { className: `swatch color${color}`, title: COLORS[color].name });
    this.shown = make("input", { type: "checkbox", checked: true, onchange: () => sentences.onSwitch(this) });
    this.input = make("input", {
      type: "text", id, autocomplete: "off", spellcheck: false, maxLength: 1000, placeholder: "the cyst in the left lobe of the liver",
      "aria-describedby": `${id}-read`, oninput: () => this._typed(), onfocus: () => { sentences.last = this; },
      onscroll: () => this._align(), onkeyup: () => this._align(),
    });
    this.mirror = make("div", { className: "mirror", "aria-hidden": "true" });
    this.remove = make("button", { type: "button", className: "icon", onclick: () => sentences.remove(this) }, "\u00d7");
    this.told = make("div", { id: `${id}-read`, className: "told", "aria-live": "polite" });
    this.element = make("li", {},
      this.swatch, make("div", { className: "field" }, this.mirror, this.input),
      make("label", { className: "switch" }, this.shown, make("span", {}, "show")), this.remove, this.told);
  }

  get text() {
    return this.input.value.trim().replace(/\s+/g, " ");
  }

  set text(text) {
    this.input.value = text;
    this._typed();
  }

  number(n) {
    this.swatch.textContent = n;
    this.input.setAttribute("aria-label", `Sentence ${n}`);
    this.shown.setAttribute("aria-label", `Show the outlines of sentence ${n}`);
    this.remove.setAttribute("aria-label", `Remove sentence ${n}`);
  }

  insert(word) {
    const { input } = this;
    const [start, end] = [input.selectionStart, input.selectionEnd];
    const before = input.value.slice(0, start);
    const after = input.value.slice(end);
    const text = `${/\S$/.test(before) ? " " : ""}${word}${/^\S/.test(after) ? " " : ""}`;
    input.focus();
    input.setRangeText(text, start, end, "end");
    this._typed();
  }

  /** Ask the model how it reads the sentence; returns the reading, or null for an empty row. */
  async read() {
    const { text } = this;
    clearTimeout(this.timer);
    if (text === "") {
      this._show(null);
      return null;
    }
    let reading;
    try {
      reading = await post(`/models/${encodeURIComponent(this.sentences.model())}/read`, { text });
    } catch (error) {
      if (error.kind !== "InputError") throw error;
      reading = { understood: "no", unknown: [], reasons: [{ text: error.message, refuses: true }], read_as: "" };
    }
    // What was typed since then is read next.
    if (text === this.text) this._show(reading);
    return reading;
  }

  _typed() {
    this.mirror.textContent = this.input.value;
    clearTimeout(this.timer);
    // While the server does not answer, asking will tell.
    this.timer = setTimeout(() => this.read().catch(() => {}), PAUSE_MS);
    this.sentences.onChange();
  }

  _show(reading) {
    this.reading = reading;
    this.mirror.replaceChildren(...marked(this.input.value, reading?.unknown ?? []));
    this._align();
    if (reading?.understood === "no") this.input.setAttribute("aria-invalid", "true");
    else this.input.removeAttribute("aria-invalid");
    this.told.replaceChildren(...readingOf(reading, (unknown) => this._replace(unknown)));
  }

  _replace({ text, number, nearest }) {
    const words = this.text.split(" ");
    words[number - 1] = words[number - 1].replace(text, nearest);
    this.text = words.join(" ");
    this.input.focus();
  }

  _align() {
    this.mirror.scrollLeft = this.input.scrollLeft;
  }
}
