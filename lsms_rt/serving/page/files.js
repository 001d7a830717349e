// The files that a user drops or chooses.  Their names stay here: they may be patients' names.

/** Return the files that were dropped, folders included. */
export async function filesOfDrop(transfer) {
  // Entries must be taken before the first wait.
  const entries = [...transfer.items].filter((item) => item.kind === "file").map((item) => item.webkitGetAsEntry());
  const files = await Promise.all(entries.map(filesOfEntry));
  return files.flat();
}

async function filesOfEntry(entry) {
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const files = [];
  for (;;) {
    // A folder tells its entries in parts.
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return files;
    files.push(...(await Promise.all(part.map(filesOfEntry))).flat());
  }
}

export const sizeOf = (files) => files.reduce((sum, file) => sum + file.size, 0);

export const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 20 ? 2 : 1)} MiB`;
