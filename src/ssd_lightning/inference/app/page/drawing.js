// The image and its boxes on a canvas, in the screen's own pixels, so that lines and tags stay sharp.

const FONT_PX = 13;
const TAG_HEIGHT = 20;
const TAG_PADDING = 6;
const MOST_TAGS = 40; // more would hide the image; the one that is pointed at has its tag in any case

/**
 * @param {HTMLCanvasElement} canvas
 * @param {{image: CanvasImageSource | null, width: number, height: number}} scene size in the image's pixels;
 *   without an image (a format that browsers do not show) the boxes lie on grey
 * @param {{box: number[], text: string, colour: string, textColour: string}[]} detections best first
 * @param {{space: {width: number, height: number}, chosen: number}} view the space to fill in CSS pixels, and the place
 *   of the detection that is pointed at, or -1
 */
export function draw(canvas, scene, detections, { space, chosen }) {
  const scale = Math.min(space.width / scene.width, space.height / scene.height);
  const width = Math.max(1, Math.floor(scene.width * scale));
  const height = Math.max(1, Math.floor(scene.height * scale));
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * density);
  canvas.height = Math.round(height * density);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.scale(density, density);
  context.imageSmoothingQuality = "high";
  if (scene.image) {
    context.drawImage(scene.image, 0, 0, width, height);
  } else {
    context.fillStyle = "#8a8f98";
    context.fillRect(0, 0, width, height);
  }
  const rectangles = detections.map(({ box }) => onScreen(box, width / scene.width, height / scene.height));
  const isFaint = (place) => chosen >= 0 && place !== chosen;
  for (let place = detections.length - 1; place >= 0; place -= 1) {
    context.globalAlpha = isFaint(place) ? 0.25 : 1;
    outline(context, rectangles[place], detections[place].colour);
  }
  context.font = `600 ${FONT_PX}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  const tags = [];
  detections.forEach((detection, place) => {
    const size = { width: Math.ceil(context.measureText(detection.text).width) + 2 * TAG_PADDING, height: TAG_HEIGHT };
    tags.push(tagPlace(rectangles[place], size, { width, height }, tags));
  });
  const order = [...detections.keys()].slice(0, MOST_TAGS).reverse();
  if (chosen >= 0) order.push(chosen);
  for (const place of order) {
    const [x1, y1, x2, y2] = tags[place];
    context.globalAlpha = isFaint(place) ? 0.25 : 1;
    context.fillStyle = detections[place].colour;
    context.beginPath();
    context.roundRect(x1, y1, x2 - x1, y2 - y1, 4);
    context.fill();
    context.fillStyle = detections[place].textColour;
    context.fillText(detections[place].text, x1 + TAG_PADDING, (y1 + y2) / 2 + 0.5);
  }
  context.globalAlpha = 1;
}

/** The place of the smallest detection around a point of the image, or -1. */
export function detectionAt(detections, [x, y]) {
  let best = -1;
  let bestArea = Infinity;
  detections.forEach(({ box: [x1, y1, x2, y2] }, place) => {
    const size = (x2 - x1) * (y2 - y1);
    if (x >= x1 && x <= x2 && y >= y1 && y <= y2 && size < bestArea) [best, bestArea] = [place, size];
  });
  return best;
}

function onScreen([x1, y1, x2, y2], scaleX, scaleY) {
  return [x1 * scaleX, y1 * scaleY, x2 * scaleX, y2 * scaleY];
}

/** A dark edge on both sides of the line shows it on any ground. */
function outline(context, [x1, y1, x2, y2], colour) {
  for (const [style, width] of [["rgba(0, 0, 0, 0.55)", 4.5], [colour, 2.5]]) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
}

/** The place around or in a box where a tag hides least of the tags before it. */
function tagPlace([x1, y1, x2, y2], size, limits, tags) {
  const tops = [y1 - size.height - 1, y2 + 1, y1 + 1, y2 - size.height - 1];
  const lefts = [x1 - 1, x2 - size.width + 1];
  let best = null;
  let leastHidden = Infinity;
  for (const top of tops) {
    for (const left of lefts) {
      const x = Math.max(0, Math.min(left, limits.width - size.width));
      const y = Math.max(0, Math.min(top, limits.height - size.height));
      const tag = [x, y, x + size.width, y + size.height];
      const hidden = tags.reduce((sum, other) => sum + commonArea(tag, other), 0);
      if (hidden < leastHidden) [best, leastHidden] = [tag, hidden];
    }
  }
  return best;
}

function commonArea(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return Math.max(0, width) * Math.max(0, height);
}
