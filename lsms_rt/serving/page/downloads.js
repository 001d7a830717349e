// The files of an answer, to save.  They are fetched with the key, which a plain link cannot send.

import { byId, make } from "./dom.js";
import { fileOf } from "./job.js";

const ALL = "files.zip";

/** Show a button for each kind of file that was written, and say which could not be; `failed(error)` tells of an error. */
export function showDownloads(job, files, notWritten, largest, failed) {
  const has = (pattern) => files.filter((name) => pattern.test(name));
  const several = (label, names) => names.map((name, n) => [names.length > 1 ? `${label} ${n + 1}` : label, name]);
  const montage = has(/^montage\.png$/);
  const rows = [
    ...several("DICOM SEG", has(/^segmentation\.dcm$/)),
    ...several("NIfTI mask", has(/^mask(_\d+)?\.nii\.gz$/)),
    ...several("DICOM SR", has(/^report\.dcm$/)),
    ...several("DICOM key image", has(/^key(_\d+)?\.dcm$/)),
    ...several("Results (JSON)", has(/^results\.json$/)),
    ...several("Picture", montage.length > 0 || largest === null ? montage : [largest]),
    ["All (ZIP)", ALL],
  ];
  byId("downloads").replaceChildren(...rows.map(([label, name]) => button(label, name, job, failed)));
  byId("not-written").replaceChildren(...notWritten.map((text) => make("li", {}, `Not written: ${text}`)));
}

function button(label, name, job, failed) {
  const element = make("button", { type: "button" }, label);
  element.dataset.file = name;
  const save = () => fileOf(job, name).then((blob) => offer(blob, name === ALL ? "lsms-rt.zip" : name));
  element.addEventListener("click", () => save().catch((error) => failed(error, () => element.click())));
  return element;
}

function offer(blob, name) {
  const href = URL.createObjectURL(blob);
  make("a", { href, download: name }).click();
  // The browser has the content once the click was handled.
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}
