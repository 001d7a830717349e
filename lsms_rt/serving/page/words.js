// The words that a model knows, by what they say, as chips that write them.

import { getJson } from "./api.js";
import { byId, make } from "./dom.js";

const TITLES = {
  lesion: "Lesion", type: "Type", broader: "Broader words", nature: "Nature", density: "Density", enhancement: "Enhancement",
  size: "Size", order: "Order", relation: "Next to what", place: "Place", command: "Commands",
};

/** Show a model's words; `insert(word)` is called when one is chosen. */
export async function showWords(model, insert) {
  const { groups } = await getJson(`/models/${encodeURIComponent(model)}/words`);
  const parts = Object.entries(groups).map(([name, entries]) => {
    const words = entries.flatMap((entry) => entry.known);
    const chips = words.map((word) => make("button", { type: "button", className: "chip", onclick: () => insert(word) }, word));
    return make("details", {}, make("summary", {}, `${TITLES[name] ?? name} (${words.length})`),
      make("p", { className: "chips" }, ...chips));
  });
  byId("groups").replaceChildren(...parts);
}
