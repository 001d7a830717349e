// What sets the pictures: window, fill, slice, keys; and the words that say what they show.

import { byId, make, say } from "./dom.js";

// [name, width, level] in HU
const WINDOWS = [
  ["Abdomen", 350, 50], ["Liver", 150, 90], ["Soft tissue", 400, 40], ["Lung", 1500, -600], ["Bone", 1800, 400],
  ["Everything", 4096, 1024],
];
const CUSTOM = "Other";
const PAGE = 5;
const SAY_AFTER_MS = 600;

/** Let the page's controls set a viewer; `textOf(slice)` says what a slice shows, `foundSlices()` where there is something. */
export class Controls {
  constructor({ viewer, textOf, foundSlices }) {
    this.viewer = viewer;
    this.textOf = textOf;
    this.foundSlices = foundSlices;
    byId("preset").append(...[...WINDOWS.map(([name]) => name), CUSTOM].map((name) => make("option", {}, name)));
    byId("preset").addEventListener("change", () => this._preset());
    for (const id of ["width", "level"]) byId(id).addEventListener("change", () => this._typed());
    byId("fill").addEventListener("input", ({ target }) => target.setAttribute("aria-valuetext", `${target.value} %`));
    // Every voxel changes, which takes too long for each step of the mouse.
    byId("fill").addEventListener("change", ({ target }) => viewer.setFill(Number(target.value) / 100));
    byId("slice").addEventListener("input", (event) => viewer.goTo(Number(event.target.value) - 1));
    byId("holder").addEventListener("keydown", (event) => this._key(event), true);
    byId("holder").addEventListener("pointerdown", () => byId("holder").focus({ preventScroll: true }));
    this._preset();
  }

  /** The window as [low, high] in HU. */
  get range() {
    const [width, level] = [Number(byId("width").value), Number(byId("level").value)];
    return [level - width / 2, level + width / 2];
  }

  /** A new image is shown: set the slider to its slices. */
  reset() {
    const { slices } = this.viewer;
    Object.assign(byId("slice"), { max: Math.max(1, slices), disabled: slices < 2 });
    this.update();
  }

  /** Say what the slice shows. */
  update() {
    const { slice, slices } = this.viewer;
    const text = slices === 0 ? "" : this.textOf(slice);
    byId("slice").value = slice + 1;
    byId("slice").setAttribute("aria-valuetext", text);
    byId("slice-number").textContent = slices === 0 ? "" : `${slice + 1} of ${slices}`;
    byId("canvas").setAttribute("aria-label", text || "No image yet");
    byId("caption").textContent = text;
    // Where the slider has the focus, it says its own value.
    clearTimeout(this.timer);
    if (document.activeElement === byId("holder")) this.timer = setTimeout(() => say(text), SAY_AFTER_MS);
  }

  /** Take over a window that the mouse has set. */
  windowChanged(low, high) {
    byId("width").value = Math.round(high - low);
    byId("level").value = Math.round((low + high) / 2);
    this._name();
  }

  _preset() {
    const chosen = WINDOWS.find(([name]) => name === byId("preset").value);
    if (chosen === undefined) return;
    [byId("width").value, byId("level").value] = chosen.slice(1);
    this.viewer.setWindow(...this.range);
  }

  _typed() {
    if (!byId("width").checkValidity() || !byId("level").checkValidity()) return;
    this.viewer.setWindow(...this.range);
    this._name();
  }

  _name() {
    const [width, level] = [Number(byId("width").value), Number(byId("level").value)];
    byId("preset").value = WINDOWS.find((one) => one[1] === width && one[2] === level)?.[0] ?? CUSTOM;
  }

  _key(event) {
    const { slice, slices } = this.viewer;
    const found = this.foundSlices();
    const steps = {
      ArrowUp: () => slice + 1, ArrowRight: () => slice + 1, ArrowDown: () => slice - 1, ArrowLeft: () => slice - 1,
      PageUp: () => slice + PAGE, PageDown: () => slice - PAGE, Home: () => 0, End: () => slices - 1,
      n: () => found.find((one) => one > slice) ?? slice, p: () => found.findLast((one) => one < slice) ?? slice,
    };
    const step = steps[event.key];
    if (step === undefined || event.ctrlKey || event.metaKey || event.altKey || slices === 0) return;
    event.preventDefault();
    event.stopPropagation();
    this.viewer.goTo(step());
  }
}
