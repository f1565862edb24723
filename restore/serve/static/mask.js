// A mask of the size of the picture, opaque where it is to be restored; or hints, strokes in colours that are known.
const COLOUR = "#ff2a6d";
const KEPT = 8; // strokes that can be undone,
const KEPT_BYTES = 2 ** 28; // as far as they fit into memory

export class Mask {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
    this.hints = null; // the colour of the next stroke; null: it is a mask
    this.resize(1, 1);
  }

  get hidden() {
    return this.canvas.hidden;
  }

  set hidden(value) {
    this.canvas.hidden = value;
  }

  resize(width, height) {
    this.canvas.width = width;
    this.canvas.height = height;
    this.undoable = [];
    this.edited = false;
  }

  begin(erases, size) {
    this.#keep();
    Object.assign(this.context, { lineCap: "round", lineJoin: "round", lineWidth: size, strokeStyle: this.hints ?? COLOUR });
    this.context.globalCompositeOperation = erases ? "destination-out" : "source-over";
    this.last = null;
  }

  stroke(x, y) {
    const [fromX, fromY] = this.last ?? [x, y];
    this.context.beginPath();
    this.context.moveTo(fromX, fromY);
    this.context.lineTo(x, y);
    this.context.stroke();
    this.last = [x, y];
  }

  end() {
    this.context.globalCompositeOperation = "source-over";
    this.edited = true;
  }

  undo() {
    const last = this.undoable.pop();
    if (!last) return;
    this.context.putImageData(last, 0, 0);
    this.edited = true;
  }

  clear() {
    this.#keep();
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.edited = true;
  }

  // Takes a picture, white where it is to be restored; of hints the colours as they are. `edited`: a person chose it.
  async take(blob, edited) {
    const picture = await createImageBitmap(blob);
    const { width, height } = this.canvas;
    this.#keep();
    this.context.clearRect(0, 0, width, height);
    this.context.drawImage(picture, 0, 0, width, height);
    this.edited = edited;
    if (this.hints) return;
    const pixels = this.context.getImageData(0, 0, width, height);
    const [red, green, blue] = [1, 3, 5].map((at) => parseInt(COLOUR.slice(at, at + 2), 16));
    const inside = ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0; // little-endian, as all browsers' machines
    const { data } = pixels;
    const words = new Uint32Array(data.buffer);
    for (let at = 0; at < words.length; at += 1) {
      words[at] = Math.max(data[4 * at], data[4 * at + 1], data[4 * at + 2]) > 127 ? inside : 0;
    }
    this.context.putImageData(pixels, 0, 0);
  }

  save() {
    return { pixels: this.context.getImageData(0, 0, this.canvas.width, this.canvas.height), edited: this.edited };
  }

  load({ pixels, edited }) {
    this.resize(pixels.width, pixels.height);
    this.context.putImageData(pixels, 0, 0);
    this.edited = edited;
  }

  // Whether anything is marked in what was saved.
  static marks({ pixels }) {
    return pixels.data.some((value, at) => at % 4 === 3 && value > 127);
  }

  // What was saved as a PNG, white where it is to be restored; of hints as painted.
  static blob({ pixels }, hints) {
    const { width, height } = pixels;
    const made = Object.assign(document.createElement("canvas"), { width, height });
    const words = new Uint32Array(pixels.data.buffer.slice(0));
    for (let at = 0; at < words.length; at += 1) words[at] = words[at] >>> 24 > 127 ? 0xffffffff : 0xff000000;
    const mask = new ImageData(new Uint8ClampedArray(words.buffer), width, height);
    made.getContext("2d").putImageData(hints ? pixels : mask, 0, 0);
    return new Promise((resolve) => made.toBlob(resolve, "image/png"));
  }

  #keep() {
    this.undoable.push(this.context.getImageData(0, 0, this.canvas.width, this.canvas.height));
    const most = Math.max(1, Math.min(KEPT, KEPT_BYTES / (4 * this.canvas.width * this.canvas.height)));
    if (this.undoable.length > most) this.undoable.shift();
  }
}
