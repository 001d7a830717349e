// The pictures: the only module that knows NiiVue.
//
// The server hands every image over in one orientation: columns grow to the patient's left, rows to the back, slices to
// the head; masks have the same grid.  So places are found here without the files' own geometry.

import { NVImage, Niivue, SHOW_RENDER, SLICE_TYPE } from "./vendor/niivue.js";
import { COLORS } from "./colors.js";

// Values of a mask as it is drawn: opaque at its edge, and below it translucent, as (value / EDGE) squared.
const EDGE = 255;
const TRANSLUCENT_BELOW_MINIMUM = 1;
// Width of the crosshair in mm.
const CROSSHAIR = 0.8;
// Each plane's left edge, top, width and height, as shares of the canvas.
const THREE_PLANES = [
  { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 0.66, 1] },
  { sliceType: SLICE_TYPE.CORONAL, position: [0.66, 0, 0.34, 0.5] },
  { sliceType: SLICE_TYPE.SAGITTAL, position: [0.66, 0.5, 0.34, 0.5] },
];
const ONE_PLANE = [{ sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 1, 1] }];

export class Viewer {
  /** `onMove(slice)` is called when another slice is shown, `onWindow(low, high)` when the mouse changes the window. */
  constructor({ onMove, onWindow }) {
    this.onMove = onMove;
    this.fill = 0.25;
    this.slices = 0;
    this.nv = new Niivue({
      logLevel: "error",
      dragAndDropEnabled: false,
      show3Dcrosshair: false,
      isRadiologicalConvention: true,
      multiplanarShowRender: SHOW_RENDER.NEVER,
      showAllOrientationMarkers: true,
      crosshairWidth: CROSSHAIR,
      crosshairWidthUnit: "mm",
      crosshairColor: [0.6, 0.75, 0.9, 0.6],
      crosshairGap: 14,
      fontMinPx: 15,
      loadingText: "",
      backColor: [0, 0, 0, 1],
      clipPlaneHotKey: "",
      cycleClipPlaneHotKey: "",
      viewModeHotKey: "",
    });
    this.nv.onLocationChange = () => this._moved();
    this.nv.onIntensityChange = (volume) => onWindow(volume.cal_min, volume.cal_max);
    COLORS.forEach(({ rgb }, n) => {
      const [R, G, B] = rgb.map((one) => [one, one]);
      this.nv.addColormap(`sentence${n}`, { R, G, B, A: [0, 255], I: [0, 255] });
    });
  }

  /** Draw into a canvas; throws where the browser has no WebGL 2. */
  async attach(canvas) {
    await this.nv.attachToCanvas(canvas, false);
    // Keys and focus are those of the element around it.
    canvas.removeAttribute("tabindex");
    canvas.parentElement.addEventListener("dblclick", (event) => event.stopPropagation(), true);
  }

  /** Show an image, a .nii.gz; `sideKnown` says whether R and L may be shown. */
  async showImage(buffer, sideKnown, [low, high]) {
    this.clear();
    const volume = await NVImage.loadFromUrl({
      url: buffer, name: "image.nii.gz", colormap: "gray", cal_min: low, cal_max: high, trustCalMinMax: false,
    });
    this.slices = volume.hdr.dims[3];
    this.nv.opts.isOrientationTextVisible = sideKnown;
    this.nv.addVolume(volume);
    // Of one slice there is nothing to cross.
    this.nv.opts.crosshairWidth = this.slices > 1 ? CROSSHAIR : 0;
    this.nv.setSliceType(SLICE_TYPE.MULTIPLANAR);
    this.nv.setCustomLayout(this.slices > 1 ? THREE_PLANES : ONE_PLANE);
    this.goTo(Math.floor(this.slices / 2));
  }

  /** Show masks, .nii.gz of 0 and 1 in the image's grid: `[{ buffer, color }]`, where `color` counts in COLORS. */
  async showMasks(masks) {
    this.clearMasks();
    for (const { buffer, color } of masks) {
      const volume = await NVImage.loadFromUrl({
        url: buffer, name: "mask.nii.gz", colormap: `sentence${color}`, trustCalMinMax: false,
      });
      Object.assign(volume, { colormapType: TRANSLUCENT_BELOW_MINIMUM, cal_min: EDGE, cal_max: EDGE });
      markEdges(volume.img, volume.hdr.dims, this._inside);
      this.nv.addVolume(volume);
    }
  }

  clear() {
    for (const volume of [...this.nv.volumes].reverse()) this.nv.removeVolume(volume);
    this.slices = 0;
  }

  clearMasks() {
    for (const volume of this._masks.reverse()) this.nv.removeVolume(volume);
  }

  /** Show or hide a mask, counted as in showMasks. */
  setVisible(mask, visible) {
    this.nv.setOpacity(mask + 1, visible ? 1 : 0);
  }

  /** Set how opaque the inside of masks is, 0 to 1; their edges always are. */
  setFill(fill) {
    this.fill = fill;
    for (const { img } of this._masks) {
      for (let at = 0; at < img.length; at += 1) if (img[at] !== 0 && img[at] !== EDGE) img[at] = this._inside;
    }
    if (this._masks.length > 0) this.nv.updateGLVolume();
  }

  /** Show HU from `low` (black) to `high` (white). */
  setWindow(low, high) {
    const [image] = this.nv.volumes;
    if (image === undefined) return;
    image.cal_min = low;
    image.cal_max = high;
    this.nv.updateGLVolume();
  }

  get slice() {
    return Math.max(0, Math.min(this.slices - 1, Math.floor(this.nv.scene.crosshairPos[2] * this.slices)));
  }

  /** Show a slice; with a mask, counted as in showMasks, the other planes go through the middle of it. */
  goTo(slice, mask = null) {
    const to = Math.max(0, Math.min(this.slices - 1, slice));
    const position = [...this.nv.scene.crosshairPos];
    position[2] = (to + 0.5) / this.slices;
    const volume = mask === null ? undefined : this.nv.volumes[mask + 1];
    const middle = volume === undefined ? null : middleOf(volume.img, volume.hdr.dims, to);
    if (middle !== null) [position[0], position[1]] = middle;
    this.nv.scene.crosshairPos = position;
    this.nv.drawScene();
    this._moved();
  }

  /** Return the numbers of mask pixels that are shown in each slice; for tests. */
  maskPixels() {
    return this._masks.map(({ img, hdr, opacity }) => {
      const size = hdr.dims[1] * hdr.dims[2];
      const count = (slice) => img.subarray(slice * size, (slice + 1) * size).reduce((n, v) => n + (v > 0), 0);
      return { visible: opacity > 0, pixels: Array.from({ length: this.slices }, (_, slice) => count(slice)) };
    });
  }

  _moved() {
    if (this.slices === 0 || this.slice === this._last) return;
    this._last = this.slice;
    this.onMove(this.slice);
  }

  get _masks() {
    return this.nv.volumes.slice(1);
  }

  get _inside() {
    return Math.max(1, Math.min(EDGE - 1, Math.round(EDGE * Math.sqrt(this.fill))));
  }
}

/** Mark the pixels at a mask's edge, slice by slice: they are drawn as its outline. */
function markEdges(mask, dims, inside) {
  const [, columns, rows, slices] = dims;
  const empty = (at, exists) => !exists || mask[at] === 0;
  for (let z = 0, at = 0; z < slices; z += 1) {
    for (let y = 0; y < rows; y += 1) {
      for (let x = 0; x < columns; x += 1, at += 1) {
        if (mask[at] === 0) continue;
        const edge = empty(at - 1, x > 0) || empty(at + 1, x < columns - 1)
          || empty(at - columns, y > 0) || empty(at + columns, y < rows - 1);
        mask[at] = edge ? EDGE : inside;
      }
    }
  }
}

/** Return where the middle of a slice's mask is, as fractions from the patient's right and from the back; else null. */
function middleOf(mask, dims, slice) {
  const [, columns, rows] = dims;
  let count = 0;
  let sumX = 0;
  let sumY = 0;
  for (let y = 0, at = slice * columns * rows; y < rows; y += 1) {
    for (let x = 0; x < columns; x += 1, at += 1) {
      if (mask[at] === 0) continue;
      count += 1;
      sumX += x;
      sumY += y;
    }
  }
  return count === 0 ? null : [1 - (sumX / count + 0.5) / columns, 1 - (sumY / count + 0.5) / rows];
}
