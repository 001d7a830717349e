// Elements of the page.  Text is only ever set as text, so nothing that was typed can become markup.

export const byId = (id) => document.getElementById(id);

/** Make an element; `on...` properties are listeners, `aria-...` and other names with "-" are attributes. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Show or hide elements. */
export function show(visible, ...ids) {
  for (const id of ids) byId(id).hidden = !visible;
}

/** Return whether nothing has the focus, or an element that was just hidden: a browser takes it away at its next frame. */
export function focusIsGone() {
  const focused = document.activeElement;
  return focused === null || focused === document.body || focused.getClientRects().length === 0;
}

/** Let screen readers say something. */
export function say(text) {
  const live = byId("live");
  // The same text again would not be said.
  live.textContent = live.textContent === text ? `${text}\u00a0` : text;
}

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;
