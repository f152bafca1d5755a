// Frames of a camera, one after another: the next is taken when the last is answered.

const REASONS = {
  NotAllowedError: "The browser was not allowed to use the camera.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera is in use elsewhere.",
};

export class Webcam {
  /** @param {(blob: Blob, frame: ImageBitmap) => Promise<void>} look at a frame; the next waits for it */
  constructor(look) {
    this.look = look;
    this.stream = null;
    this.turn = 0;
  }

  get isOn() {
    return this.stream !== null;
  }

  /** Run until `stop`; throws an error with a sentence where there is no camera, and what `look` throws. */
  async run() {
    this.turn += 1;
    const turn = this.turn;
    if (!navigator.mediaDevices) throw new Error("Browsers give a camera only to pages of this machine or with https.");
    let stream;
    try {
      const video = { width: { ideal: 640 }, facingMode: "environment" };
      stream = await navigator.mediaDevices.getUserMedia({ video });
    } catch (error) {
      throw new Error(REASONS[error.name] ?? `The camera cannot be used: ${error.message}`);
    }
    if (turn !== this.turn) {
      release(stream);
      return;
    }
    this.stream = stream;
    try {
      const video = document.createElement("video");
      video.muted = true;
      video.playsInline = true;
      video.srcObject = stream;
      await video.play();
      const canvas = document.createElement("canvas");
      while (turn === this.turn) {
        const frame = await createImageBitmap(video);
        [canvas.width, canvas.height] = [frame.width, frame.height];
        canvas.getContext("2d").drawImage(frame, 0, 0);
        const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
        if (turn !== this.turn) break;
        await this.look(blob, frame);
        await new Promise(requestAnimationFrame);
      }
    } finally {
      release(stream);
      if (turn === this.turn) this.stream = null;
    }
  }

  stop() {
    this.turn += 1;
    if (this.stream) release(this.stream);
    this.stream = null;
  }
}

function release(stream) {
  stream.getTracks().forEach((track) => track.stop());
}
