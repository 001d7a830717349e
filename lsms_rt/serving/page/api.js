// Requests to the server.  The API key is kept in this module's memory, and nowhere else.

let key = "";
let askForKey = async () => "";
let asking = null;

/** The server answered with an error. */
export class ApiError extends Error {
  constructor(status, body, retryAfter) {
    super(body.error ?? `the server answered ${status}`);
    this.status = status;
    this.kind = body.kind ?? "";
    this.series = body.series ?? [];
    this.retryAfter = retryAfter;
  }
}

/** The server did not answer. */
export class NoAnswerError extends Error {}

/** Set what asks the user for the key; it is called with whether one was refused. */
export function whenKeyIsNeeded(callback) {
  askForKey = callback;
}

/** Send a request; returns the answer. `json` is sent as JSON. */
export async function request(path, { json, ...options } = {}) {
  const body = json === undefined ? options.body : JSON.stringify(json);
  const type = json === undefined ? {} : { "Content-Type": "application/json" };
  for (;;) {
    let response;
    const used = key;
    try {
      response = await fetch(path, { ...options, body, headers: { ...type, ...bearer() } });
    } catch (error) {
      throw error.name === "AbortError" ? error : new NoAnswerError("the server does not answer");
    }
    if (response.ok) return response;
    if (response.status !== 401) throw await errorOf(response);
    await renewKey(used);
  }
}

/** Get JSON. */
export const getJson = async (path, options) => (await request(path, options)).json();

/** Post JSON, or nothing, and get JSON. */
export const post = (path, json, options) => getJson(path, { method: "POST", json, ...options });

/** Yield the objects of an answer that has one per line, as they arrive. */
export async function* linesOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : new NoAnswerError("the connection was lost");
    }
    if (part.done) return;
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) yield JSON.parse(line);
  }
}

/** Send a file, and tell how many of its bytes are sent; fetch cannot tell. */
export async function sendFile(path, file, onSent, signal) {
  for (;;) {
    const used = key;
    const sent = await sendOnce(path, file, onSent, signal);
    if (sent.status >= 200 && sent.status < 300) return sent.body;
    if (sent.status !== 401) throw new ApiError(sent.status, sent.body, sent.retryAfter);
    await renewKey(used);
  }
}

/** Delete an image as the page closes; nobody waits for the answer. */
export function forget(path) {
  fetch(path, { method: "DELETE", keepalive: true, headers: bearer() }).catch(() => {});
}

function sendOnce(path, file, onSent, signal) {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    const abort = () => sending.abort();
    signal.addEventListener("abort", abort);
    sending.open("POST", path);
    for (const [name, value] of Object.entries(bearer())) sending.setRequestHeader(name, value);
    sending.upload.addEventListener("progress", (event) => onSent(event.loaded));
    sending.addEventListener("loadend", () => signal.removeEventListener("abort", abort));
    sending.addEventListener("abort", () => reject(new DOMException("aborted", "AbortError")));
    sending.addEventListener("error", () => reject(new NoAnswerError("the server does not answer")));
    sending.addEventListener("load", () => {
      const retryAfter = Number(sending.getResponseHeader("Retry-After"));
      resolve({ status: sending.status, body: parsed(sending.responseText), retryAfter });
    });
    if (signal.aborted) reject(new DOMException("aborted", "AbortError"));
    else sending.send(file);
  });
}

function bearer() {
  return key ? { Authorization: `Bearer ${key}` } : {};
}

/** Ask for the key; requests that run beside each other ask once. */
async function renewKey(used) {
  if (key !== used) return;
  asking ??= askForKey(used !== "").finally(() => { asking = null; });
  key = await asking;
}

async function errorOf(response) {
  return new ApiError(response.status, parsed(await response.text()), Number(response.headers.get("Retry-After")));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
