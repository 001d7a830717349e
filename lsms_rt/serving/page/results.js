// What was found, in words and numbers: a summary per sentence, and a table of slices.

import { byId, make, plural } from "./dom.js";

const number = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "\u2212"));
const swatch = (color, n) => make("span", { className: `swatch color${color}` }, n);

export class Results {
  /**
   * Args: `asked`, the sentences that were asked, `[{ text, color, number, shown }]`, where `number` is the row's; what the
   * server's results.json says; the number of slices.
   */
  constructor(asked, results, slices) {
    this.asked = asked;
    this.results = results;
    this.slices = slices;
    this.found = results.results.filter((one) => one.found).sort((a, b) => a.number - b.number || a.sentence - b.sentence);
  }

  get foundSlices() {
    return [...new Set(this.found.map((one) => one.number))];
  }

  /** Say what is outlined in a slice. */
  textOf(slice) {
    const here = this.found.filter((one) => one.number === slice && this.asked[one.sentence - 1].shown());
    const parts = here.map((one) => {
      const { number: row, text } = this.asked[one.sentence - 1];
      const area = one.area_mm2 === null ? plural(one.pixels, "pixel") : `${number(one.area_mm2, 0)} mm\u00b2`;
      return `${row}: “${text}” outlined, ${area}`;
    });
    return parts.length === 0 ? "nothing outlined" : parts.join("; ");
  }

  /** Show the summary and the table; `onJump(slice, sentence)` is called when a row is activated. */
  show(onJump) {
    const series = (n) => this.results.series.find((one) => one.sentence === n + 1);
    byId("summary").replaceChildren(...this.asked.map((one, n) => this._summary(one, n, series(n))));
    byId("found").hidden = this.found.length === 0;
    byId("table").replaceChildren(this._table(onJump));
    byId("results").hidden = false;
  }

  /** Mark the slice that is shown. */
  mark(slice) {
    for (const row of byId("table").querySelectorAll("tbody tr")) {
      if (Number(row.dataset.slice) === slice) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
    }
  }

  /** What is not complete, in words. */
  get warnings() {
    const { series, not_read: notRead, not_computed: notComputed } = this.results;
    const gaps = Math.max(0, ...series.map((one) => one.gaps ?? 0));
    return [
      ...(gaps > 0 ? [`Incomplete series: slices seem to be missing at ${plural(gaps, "place")}`] : []),
      ...notRead.map((text) => `Not read: ${text}`),
      ...notComputed.map((text) => `Not computed: ${text}`),
    ];
  }

  _summary(asked, n, series) {
    const notes = this.results.sentences.find((one) => one.sentence === n + 1)?.notes ?? [];
    let text;
    if (series === undefined) {
      text = "No answer: see why below.";
    } else if (series.found === 0) {
      text = `Nothing found in ${plural(series.slices, "slice")}.`;
    } else {
      const volume = series.volume_ml === null ? "volume not known" : `${number(series.volume_ml, 1)} ml`;
      text = `Found in ${series.found} of ${plural(series.slices, "slice")}, ${volume}, highest score ${number(series.score, 2)}.`;
    }
    return make("li", { className: series?.found === 0 ? "nothing" : "" }, swatch(asked.color, asked.number),
      make("div", {}, make("b", {}, asked.text), make("p", {}, text),
        ...notes.map((note) => make("p", { className: "quiet" }, note))));
  }

  _table(onJump) {
    const heads = ["Slice", "Sentence", "Position, mm", "Area, mm\u00b2", "Mean HU", "Score"];
    const row = (one) => {
      const { color, number: row, text } = this.asked[one.sentence - 1];
      const label = `Go to slice ${one.number + 1}, sentence ${row}`;
      const jump = make("button", { type: "button", className: "link", "aria-label": label }, one.number + 1);
      const cells = [one.position_mm, one.area_mm2, one.mean_hu].map((value, n) => number(value, n === 1 ? 0 : 1));
      const element = make("tr", { onclick: () => onJump(one.number, one.sentence) },
        make("th", { scope: "row" }, jump), make("td", { title: text }, swatch(color, row)),
        ...[...cells, number(one.score, 2)].map((cell) => make("td", {}, cell)));
      element.dataset.slice = one.number;
      return element;
    };
    return make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...this.found.map(row)));
  }
}
