// The page: images come in, the network looks at each once, and the sliders choose among what it found.

import { detectionAt, draw } from "./drawing.js";
import { element, make } from "./elements.js";
import { takeImages } from "./intake.js";
import { ClassList, fillTable } from "./lists.js";
import { Refusal, fetchCandidates, fetchExample, fetchModel } from "./server.js";
import { nms } from "./nms.js";
import { Webcam } from "./webcam.js";

const model = await fetchModel().catch((error) => {
  tell(error.message);
  throw error;
});
const classes = new ClassList(element("classes"), model.classes, showChoice);
const webcam = new Webcam(lookAtFrame);

let image = null; // what is shown; null where the browser cannot show it
let imageName = "";
let found = null; // what the network says about it
let kept = []; // places in `found` that are left after NMS
let shown = []; // of these, what scores well enough and is of a ticked class
let chosen = -1; // place in `shown` that is pointed at
let looks = 0; // images so far: an answer to an older one comes too late
let framesPerSecond = null;
let lastFrame = null;

function begin() {
  const { name, image_size: size, device } = model;
  const number = `${model.classes.length} ${model.classes.length === 1 ? "class" : "classes"}`;
  element("model").textContent = `${name} · ${number} · input ${size.width} × ${size.height} · ${device}`;
  document.title = `${name} · detector demo`;
  element("score").min = model.lowest_score;
  element("score").value = model.score_threshold;
  element("overlap").value = model.postprocess.iou_threshold;
  element("overlap").disabled = model.overlap_note !== null;
  element("overlap-note").hidden = model.overlap_note === null;
  element("overlap-note").textContent = model.overlap_note;
  element("examples").append(...model.examples.map(exampleButton));
  element("examples").hidden = element("or-example").hidden = model.examples.length === 0;

  takeImages(lookAtFile, () => tell("There is no image in the clipboard."));
  element("webcam").addEventListener("click", () => (isWebcamWanted() ? stopWebcam() : startWebcam()));
  element("score").addEventListener("input", showChoice);
  element("overlap").addEventListener("input", () => {
    applyNms();
    showChoice();
  });
  element("all-classes").addEventListener("click", () => classes.tickAll(true));
  element("no-classes").addEventListener("click", () => classes.tickAll(false));
  element("copy").addEventListener("click", copyRecord);
  element("canvas").addEventListener("pointermove", pointAt);
  element("canvas").addEventListener("pointerleave", () => choose(-1));
  new ResizeObserver(redraw).observe(element("stage"));
  window.addEventListener("resize", redraw);
  showChoice();
}

function exampleButton(name, index) {
  const image = make("img", { src: `examples/${index}/thumbnail`, alt: `example ${name}` });
  const button = make("button", { type: "button", title: name }, image);
  button.addEventListener("click", () => look(fetchExample(index), name));
  return button;
}

function lookAtFile(file) {
  if (file.size > model.max_bytes) tell(`${file.name} is larger than ${model.max_bytes / 1e6} MB.`);
  else look(file, file.name);
}

/** Look at an image that is here or will be. */
async function look(data, name) {
  stopWebcam();
  tell("");
  looks += 1;
  const turn = looks;
  element("stage").ariaBusy = "true";
  try {
    const blob = await data;
    const [bitmap, answer] = await Promise.all([createImageBitmap(blob).catch(() => null), fetchCandidates(blob)]);
    if (turn !== looks) return;
    show(bitmap, name, answer);
    if (!bitmap) tell(`${name}: this browser cannot show the image; its boxes are right nevertheless.`);
  } catch (error) {
    if (turn === looks) tell(`${name}: ${error.message}`);
    if (!(error instanceof Refusal)) throw error;
  } finally {
    if (turn === looks) element("stage").ariaBusy = "false";
  }
}

async function lookAtFrame(blob, frame) {
  const turn = looks;
  let answer;
  try {
    answer = await fetchCandidates(blob);
  } catch (error) {
    frame.close();
    if (error.status !== 503) throw error;
    await new Promise((resolve) => setTimeout(resolve, 300)); // others are being served
    return;
  }
  if (turn !== looks) {
    frame.close();
    return;
  }
  const now = performance.now();
  if (lastFrame !== null) {
    const rate = 1000 / (now - lastFrame);
    framesPerSecond = framesPerSecond === null ? rate : 0.8 * framesPerSecond + 0.2 * rate;
  }
  lastFrame = now;
  show(frame, "webcam", answer);
}

async function startWebcam() {
  tell("");
  looks += 1;
  element("stage").ariaBusy = "false";
  [framesPerSecond, lastFrame] = [null, null];
  showWebcamButton(true);
  try {
    await webcam.run();
  } catch (error) {
    stopWebcam();
    tell(error.message);
  }
}

function stopWebcam() {
  webcam.stop();
  showWebcamButton(false);
}

function isWebcamWanted() {
  return element("webcam").ariaPressed === "true";
}

function showWebcamButton(isOn) {
  element("webcam").ariaPressed = String(isOn);
  element("webcam").textContent = isOn ? "Stop webcam" : "Start webcam";
}

function show(bitmap, name, answer) {
  image?.close();
  [image, imageName, found] = [bitmap, name, answer];
  element("canvas").hidden = false;
  element("invitation").hidden = true;
  applyNms();
  showChoice();
}

function applyNms() {
  if (!found) return;
  const { class_agnostic, max_detections: most } = model.postprocess;
  const isFixed = model.overlap_note !== null;
  const left = isFixed ? [...found.scores.keys()] : nms(found, Number(element("overlap").value), class_agnostic);
  kept = left.slice(0, most);
}

/** Show what the sliders and the classes let through. */
function showChoice() {
  const leastScore = Number(element("score").value);
  element("score-value").textContent = leastScore.toFixed(2);
  element("overlap-value").textContent = Number(element("overlap").value).toFixed(2);
  const goodEnough = kept.filter((place) => found.scores[place] >= leastScore);
  classes.count(goodEnough.map((place) => found.labels[place]));
  shown = goodEnough.filter((place) => classes.has(found.labels[place])).map(asDetection);
  chosen = -1;
  fillTable(element("rows"), shown, choose);
  element("table").hidden = shown.length === 0;
  element("nothing").hidden = shown.length > 0;
  element("nothing").textContent = found ? "Nothing that scores so well, of these classes." : "Nothing to list yet.";
  element("count").textContent = shown.length;
  element("copy").disabled = !found;
  showFigures();
  redraw();
}

function asDetection(place) {
  const { name, colour, text_colour: textColour } = model.classes[found.labels[place] - 1];
  const inside = (edge, axis) => Math.min(Math.max(edge, 0), axis % 2 ? found.height : found.width);
  const [box, score] = [found.boxes[place].map(inside), found.scores[place]];
  return { name, colour, textColour, score, box, text: `${name} ${Math.round(100 * score)}%` };
}

function showFigures() {
  const parts = found ? [`${found.width} × ${found.height} px`, `network ${found.networkMs.toFixed(1)} ms`] : [];
  if (webcam.isOn && framesPerSecond !== null) parts.push(`${framesPerSecond.toFixed(1)} FPS`);
  element("figures").textContent = parts.join(" · ");
}

function choose(place) {
  if (place === chosen) return;
  chosen = place;
  [...element("rows").children].forEach((row, index) => row.classList.toggle("chosen", index === chosen));
  redraw();
}

function pointAt({ offsetX, offsetY, currentTarget: canvas }) {
  const point = [(offsetX * found.width) / canvas.clientWidth, (offsetY * found.height) / canvas.clientHeight];
  choose(detectionAt(shown, point));
}

function redraw() {
  if (!found) return;
  const space = { width: element("stage").clientWidth, height: Math.max(260, 0.68 * window.innerHeight) };
  draw(element("canvas"), { image, width: found.width, height: found.height }, shown, { space, chosen });
  const texts = shown.slice(0, 10).map(({ text }) => `, ${text}`);
  element("canvas").ariaLabel = `${imageName}: ${shown.length} detections${texts.join("")}`;
}

/** What is shown, as `predict` writes it. */
function record() {
  const rounded = (number, digits) => Number(number.toFixed(digits));
  return {
    file: imageName,
    width: found.width,
    height: found.height,
    detections: shown.map(({ name, score, box }) => ({
      class: name,
      score: rounded(score, 4),
      box_xyxy_px: box.map((edge) => rounded(edge, 2)),
    })),
  };
}

async function copyRecord() {
  const text = JSON.stringify(record(), null, 2);
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers keep the clipboard from pages that come from other machines without https, all but this old way.
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  element("copy").textContent = "Copied";
  setTimeout(() => (element("copy").textContent = "Copy JSON"), 1500);
}

function tell(text) {
  element("message").textContent = text;
  element("message").hidden = !text;
}

begin();
