// Finding and making elements of the page.

export const element = (id) => document.getElementById(id);

/** Make an element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A small square of a class's colour. */
export function swatch(colour) {
  const square = make("span", { className: "swatch" });
  square.style.background = colour;
  return square;
}
