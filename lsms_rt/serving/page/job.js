// A job: asking, progress slice by slice, canceling, results.

import { NoAnswerError, getJson, linesOf, post, request } from "./api.js";

// What is written besides masks and pictures; what does not apply to an image is told in `not_written`.
const FILES = ["seg", "sr", "sc", "nifti"];

/** The job ended as the user asked. */
export class CanceledError extends Error {}

/** The job ended without results; `kind` names the server's error. */
export class JobError extends Error {
  constructor(message, kind) {
    super(message);
    this.kind = kind;
  }
}

/** Ask, and return the job's id. */
export async function ask(image, model, sentences) {
  return (await post("/jobs", { image_id: image, model, sentences, files: FILES })).job_id;
}

export const cancel = (id) => post(`/jobs/${id}/cancel`);

/** Wait for a job; `onProgress(done, total)` is called per slice, with a total of 0 while it waits. */
export async function follow(id, onProgress) {
  let last = {};
  for await (const line of linesOf(await request(`/jobs/${id}/events`))) {
    last = line;
    if (line.status === undefined) onProgress(line.done ?? 0, line.total ?? 0);
  }
  if (last.status === undefined) throw new NoAnswerError("the connection was lost before the job was done");
  if (last.status === "cancelled") throw new CanceledError("canceled");
  if (last.status !== "done") throw new JobError(last.message ?? last.status, last.kind ?? "");
}

/** Return a finished job's results, the names of its files, and a mask volume per sentence. */
export async function resultsOf(id, sentences) {
  const masks = Array.from({ length: sentences }, (_, n) => fileOf(id, `view_${n + 1}.nii.gz`));
  const [results, { files }, ...volumes] = await Promise.all([
    getJson(`/jobs/${id}/results.json`),
    getJson(`/jobs/${id}/files`),
    ...masks.map(async (mask) => (await mask).arrayBuffer()),
  ]);
  return { results, files, volumes };
}

/** Return one of a job's files, or all of them as "files.zip". */
export async function fileOf(id, name) {
  const path = name === "files.zip" ? name : `files/${encodeURIComponent(name)}`;
  return (await request(`/jobs/${id}/${path}`)).blob();
}
