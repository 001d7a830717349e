// An image on its way to the server: all files of one series, several at a time.

import { ApiError, forget, post, sendFile } from "./api.js";
import { sizeOf } from "./files.js";

const AT_ONCE = 4;
// The server does not know the format of a file.
const UNKNOWN_FORMAT = 415;

/**
 * Send files, and let the server read them.
 *
 * Files of a folder that are no images are left out; `skipped` in the answer counts them.
 * `onSent(bytes, all)` is called on the way, `onRead()` when everything is sent.
 */
export async function upload(files, { onSent, onRead, signal }) {
  const waiting = [...files];
  const all = sizeOf(files);
  const sent = new Map();
  let skipped = 0;
  let refused = null;
  const send = async (path, file) => {
    const tell = (bytes) => {
      sent.set(file, Math.min(bytes, file.size));
      onSent([...sent.values()].reduce((sum, one) => sum + one, 0), all);
    };
    try {
      return await sendFile(path, file, tell, signal);
    } catch (error) {
      if (!(error instanceof ApiError && error.status === UNKNOWN_FORMAT) || files.length === 1) throw error;
      skipped += 1;
      refused = error;
      return null;
    }
  };

  let begun = null;
  while (begun === null && waiting.length > 0) begun = await send("/images?more=true", waiting.shift());
  if (begun === null) throw refused ?? new Error("no file was chosen; take one with slices in it");
  const id = begun.image_id;
  const others = async () => {
    while (waiting.length > 0) await send(`/images/${id}/files`, waiting.shift());
  };
  try {
    await Promise.all(Array.from({ length: AT_ONCE }, others));
  } catch (error) {
    waiting.length = 0;
    forget(`/images/${id}`);
    throw error;
  }
  onRead();
  return { id, skipped };
}

/** Let the server read an image that was sent; `series` chooses one of several. */
export const read = (id, series, signal) => post(`/images/${id}/complete`, { series: series ?? null }, { signal });
