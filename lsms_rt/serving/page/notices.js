// What happened, in words: one notice at a time, with what the user can do.

import { ApiError, NoAnswerError } from "./api.js";
import { byId, make, say } from "./dom.js";

// The queue is full, or as many images are kept as may be.
const BUSY = 429;

/** Show a notice of a kind, "info", "nothing" or "error"; `actions` are `[label, function]`. */
export function notice(kind, title, text = "", ...actions) {
  const buttons = actions.map(([label, act]) => make("button", { type: "button", onclick: act }, label));
  const box = make("div", { className: `notice ${kind}` }, make("strong", {}, title));
  if (text) box.append(" ", make("span", {}, text));
  if (buttons.length > 0) box.append(make("p", { className: "buttons" }, ...buttons));
  byId("notices").replaceChildren(box);
  byId("none-yet").hidden = true;
  say(`${title}. ${text}`);
}

export function clearNotices() {
  byId("notices").replaceChildren();
}

/** Tell of an error; `retry` does what failed again. */
export function tell(error, retry) {
  const again = ["Try again", () => { clearNotices(); retry(); }];
  if (error instanceof NoAnswerError) {
    notice("error", "The server does not answer", "It was stopped, or the network is down. Nothing more is computed.", again);
  } else if (error instanceof ApiError && error.status === BUSY) {
    // Without a time it is not the queue, and the message tells what to do.
    const full = `Its queue is full. It asks to wait ${error.retryAfter} s.`;
    notice("error", "The server is busy", error.retryAfter > 0 ? full : sentence(error.message), again);
  } else if (error instanceof ApiError && error.status === 404) {
    notice("error", "Not there any more", sentence(error.message));
  } else {
    notice("error", "This did not work", sentence(error.message), again);
  }
}

/** Return a message as a sentence. */
export const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
