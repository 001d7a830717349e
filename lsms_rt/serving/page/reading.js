// How a model reads a sentence, told to the user: marks in the sentence, and words under it.

import { make } from "./dom.js";
import { sentence } from "./notices.js";

/** Return a sentence as nodes, with marks around the words that are not known. */
export function marked(text, unknown) {
  const numbers = new Set(unknown.map((word) => word.number));
  let word = 0;
  return text.split(/(\s+)/).map((part) => {
    if (part.trim() === "") return document.createTextNode(part);
    word += 1;
    return numbers.has(word) ? make("mark", {}, part) : document.createTextNode(part);
  });
}

/** Return what to say of a reading: whether it is understood, why not, and the nearest known words. */
export function readingOf(reading, replace) {
  if (reading === null) return [];
  const lines = [];
  const why = reading.reasons.map((reason) => sentence(reason.text)).join(" ");
  if (reading.understood === "no") lines.push(line("refused", "Not understood.", why));
  else if (reading.understood === "partly") lines.push(line("partly", "Partly understood,", `read as “${reading.read_as}”. ${why}`));
  const far = reading.unknown.filter((word) => word.nearest === null).map((word) => word.text);
  if (far.length > 0) lines.push(line("", "Not known:", `${[...new Set(far)].join(", ")}.`));
  for (const word of reading.unknown.filter((one) => one.nearest !== null)) {
    const fix = make("button", { type: "button", className: "chip", onclick: () => replace(word) }, `use “${word.nearest}”`);
    lines.push(make("p", {}, make("strong", {}, "Not known:"), ` ${word.text}: `, fix));
  }
  return lines;
}

const line = (kind, title, text) => make("p", { className: kind }, make("strong", {}, title), ` ${text}`);
