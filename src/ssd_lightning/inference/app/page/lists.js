// The list of classes with their check boxes, and the table of detections.

import { make, swatch } from "./elements.js";

const FEW_CLASSES = 8; // of more, those that are found come first

export class ClassList {
  /**
   * @param {HTMLElement} container
   * @param {{name: string, colour: string}[]} classes of the labels 1, 2, ...
   * @param {() => void} changed is called when a box is ticked or cleared
   */
  constructor(container, classes, changed) {
    this.rows = classes.map(({ name, colour }) => {
      const box = make("input", { type: "checkbox", checked: true });
      const number = make("span", { className: "of-class", textContent: "0" });
      const text = make("span", { className: "name", textContent: name });
      return { box, number, label: make("label", {}, box, swatch(colour), text, number) };
    });
    container.append(...this.rows.map(({ label }) => label));
    container.addEventListener("change", changed);
    this.changed = changed;
  }

  /** Whether the class of a label is ticked. */
  has(label) {
    return this.rows[label - 1].box.checked;
  }

  tickAll(checked) {
    this.rows.forEach(({ box }) => (box.checked = checked));
    this.changed();
  }

  /** Write how many there are of each class. */
  count(labels) {
    this.rows.forEach(({ label, number }, index) => {
      const count = labels.filter((found) => found === index + 1).length;
      number.textContent = count;
      label.classList.toggle("empty", count === 0);
      label.style.order = this.rows.length > FEW_CLASSES && count === 0 ? 1 : 0;
    });
  }
}

/**
 * Fill a table, a row for each detection.
 *
 * @param {HTMLTableSectionElement} body
 * @param {{name: string, colour: string, score: number, box: number[]}[]} detections
 * @param {(place: number) => void} point is called with the row that the pointer or the focus is on, or -1
 */
export function fillTable(body, detections, point) {
  const rows = detections.map(({ name, colour, score, box }, place) => {
    const numbers = [score.toFixed(3), ...box.map((edge) => edge.toFixed(0))];
    const cells = numbers.map((text) => make("td", { className: "number", textContent: text }));
    const row = make("tr", { tabIndex: 0 }, make("td", {}, swatch(colour), name), ...cells);
    for (const event of ["pointerenter", "focus"]) row.addEventListener(event, () => point(place));
    for (const event of ["pointerleave", "blur"]) row.addEventListener(event, () => point(-1));
    return row;
  });
  body.replaceChildren(...rows);
}
