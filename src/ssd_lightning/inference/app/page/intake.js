// The ways in which a visitor hands an image over: chosen, dropped, pasted.

import { element } from "./elements.js";

/**
 * @param {(file: File) => void} take is called with an image
 * @param {() => void} missed is called when something was pasted that holds none
 */
export function takeImages(take, missed) {
  for (const id of ["choose", "invitation"]) element(id).addEventListener("click", () => element("file").click());
  element("file").addEventListener("change", () => {
    const [file] = element("file").files;
    if (file) take(file);
    element("file").value = ""; // the same file may be chosen again
  });
  const mark = (isOver) => element("stage").classList.toggle("over", isOver);
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    mark(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) mark(false); // out of the window
  });
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    mark(false);
    const [file] = event.dataTransfer.files;
    if (file) take(file);
  });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find(({ type }) => type.startsWith("image/"));
    if (file) take(file);
    else missed();
  });
}

function holdsFiles(event) {
  return event.dataTransfer?.types.includes("Files") ?? false;
}
