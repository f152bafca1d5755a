// What the page asks the server.

/** An answer that is not what was asked for; the message is a sentence to show. */
export class Refusal extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export async function fetchModel() {
  return (await answer(fetch("api/model"))).json();
}

export async function fetchExample(index) {
  return (await answer(fetch(`examples/${index}`))).blob();
}

/** Have the network look at an image once, and give all boxes that the sliders may choose from. */
export async function fetchCandidates(blob) {
  const found = await (await answer(fetch("api/candidates", { method: "POST", body: blob }))).json();
  return {
    width: found.width,
    height: found.height,
    boxes: found.boxes_xyxy_px,
    scores: found.scores,
    labels: found.labels,
    networkMs: found.network_ms,
  };
}

async function answer(asked) {
  let response;
  try {
    response = await asked;
  } catch {
    throw new Refusal("The server does not answer. Is it still running?", 0);
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new Refusal(sentence(told.error ?? `the server answers ${response.status}`), response.status);
}

function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}
