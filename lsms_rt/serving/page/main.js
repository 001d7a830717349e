// The page: puts its parts together.

import { AnswerPanel } from "./answer.js";
import { getJson, whenKeyIsNeeded } from "./api.js";
import { Controls } from "./controls.js";
import { byId, focusIsGone, make, show } from "./dom.js";
import { ImagePanel } from "./image.js";
import { notice, tell } from "./notices.js";
import { Sentences } from "./sentences.js";
import { Viewer } from "./viewer.js";
import { showWords } from "./words.js";

const START_CHECK_MS = 1000;
const model = () => byId("model").value;

const viewer = new Viewer({ onMove: () => moved(), onWindow: (low, high) => controls.windowChanged(low, high) });
const sentences = new Sentences({ model, onSwitch: (row) => switched(row), onChange: () => outdated() });
const answer = new AnswerPanel({ sentences, model, onResults: showResults, onGone: () => resultsGone(), onJump: jump });
const controls = new Controls({ viewer, textOf, foundSlices: () => answer.results?.foundSlices ?? [] });
const image = new ImagePanel({ onImage: showImage, onGone: gone });
let drawing = false;
sentences.add();
byId("add").addEventListener("click", () => sentences.add().input.focus());

/** Say what a slice shows. */
function textOf(slice) {
  const which = `Axial slice ${slice + 1} of ${viewer.slices}`;
  return answer.results === null ? which : `${which}: ${answer.results.textOf(slice)}`;
}

function moved() {
  controls.update();
  answer.results?.mark(viewer.slice);
}

function jump(slice, number) {
  viewer.goTo(slice, number - 1);
}

async function showImage(id, about, volume) {
  answer.reset(id);
  if (drawing) {
    await viewer.showImage(volume, about.side_known, controls.range);
    show(false, "placeholder");
  }
  controls.reset();
  if (focusIsGone()) sentences.rows[0].input.focus();
}

function gone() {
  answer.reset(null);
  show(true, "placeholder");
  show(false, "side");
  if (drawing) viewer.clear();
  controls.reset();
}

async function showResults(found, volumes) {
  if (!drawing) return;
  const masks = volumes.map((buffer, n) => ({ buffer, color: found.asked[n].color }));
  await viewer.showMasks(masks);
  found.asked.forEach((one, n) => viewer.setVisible(n, one.shown()));
  const largest = found.found.reduce((a, b) => (a === null || b.pixels > a.pixels ? b : a), null);
  if (largest !== null) viewer.goTo(largest.number, largest.sentence - 1);
  controls.update();
}

function resultsGone() {
  if (drawing) viewer.clearMasks();
  controls.update();
  outdated();
}

function switched(row) {
  const asked = answer.results?.asked ?? [];
  const mask = asked.findIndex((one) => one.row === row);
  if (mask < 0) return;
  viewer.setVisible(mask, row.shown.checked);
  controls.update();
}

/** Say beside each sentence whether the outlines belong to another text than it has now. */
function outdated() {
  const asked = new Map(answer.results?.asked.map(({ row, text }) => [row, text]));
  for (const row of sentences.rows) row.element.classList.toggle("outdated", asked.has(row) && row.text !== asked.get(row));
}

async function start() {
  const about = await opened();
  byId("model").replaceChildren(...Object.keys(about.models).map((name) => make("option", {}, name)));
  byId("models").hidden = Object.keys(about.models).length < 2;
  const changed = async () => {
    byId("weights").textContent = about.models[model()].weights;
    await showWords(model(), (word) => sentences.insert(word));
  };
  byId("model").addEventListener("change", () => {
    answer.reset(image.id);
    changed().then(() => sentences.readAgain()).catch((error) => tell(error, changed));
  });
  await changed();
  image.limits = about.limits;
  await image.offerExamples(([text]) => sentences.set(text));
}

/** Wait until the server has opened its engines, and return what it tells of them. */
async function opened() {
  for (;;) {
    const about = await getJson("/capabilities");
    if (Object.keys(about.models).length > 0) return about;
    notice("info", "The server is starting", "It opens its engines; this page goes on by itself.");
    await new Promise((resolve) => { setTimeout(resolve, START_CHECK_MS); });
    byId("notices").replaceChildren();
  }
}

whenKeyIsNeeded((refused) => new Promise((resolve) => {
  const dialog = byId("key-dialog");
  if (refused) byId("key-why").textContent = "The server refused this key. Give the key it was started with.";
  byId("key").value = "";
  byId("key-form").addEventListener("submit", () => resolve(byId("key").value.trim()), { once: true });
  // Without a key nothing works, so Escape does not leave.
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  dialog.showModal();
}));

// For tests: what is drawn, in numbers.
globalThis.lsms = { viewer, maskPixels: () => viewer.maskPixels() };

start().catch((error) => tell(error, start));
try {
  await viewer.attach(byId("canvas"));
  drawing = true;
} catch {
  byId("placeholder").textContent = "This browser cannot draw the pictures: WebGL 2 is missing. Everything else works.";
}
