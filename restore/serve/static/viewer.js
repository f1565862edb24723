// Before and after under a line, with zoom; and a mask over them that can be painted.
import { Mask } from "./mask.js";
import { TEXTS } from "./texts.js";

const LARGEST_ZOOM = 32;

export class Viewer {
  constructor(stage, controls) {
    this.stage = stage;
    this.controls = controls; // { divider, zoom, brushSize }
    this.plane = stage.querySelector(".plane");
    this.beforeImage = stage.querySelector("img.before");
    this.afterImage = stage.querySelector("img.after");
    this.mask = new Mask(stage.querySelector("canvas"));
    this.tool = "move";
    this.size = [0, 0];
    this.place = { x: 0, y: 0, scale: 1 };
    this.fitted = true;
    this.pointers = new Map();
    controls.divider.addEventListener("input", () => this.draw());
    stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    stage.addEventListener("pointerdown", (event) => this.#down(event));
    stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const kind of ["pointerup", "pointercancel"]) stage.addEventListener(kind, (event) => this.#up(event));
    stage.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => (this.fitted ? this.fit() : this.draw())).observe(stage);
  }

  // Shows a picture; `after` may be null. Where only `after` is new, the view stays.
  async show(before, after) {
    const same = this.shown === before;
    this.shown = before;
    this.beforeImage.src = before ?? "";
    this.beforeImage.hidden = !before;
    this.afterImage.hidden = !after;
    if (after) this.afterImage.src = after;
    else this.afterImage.removeAttribute("src");
    if (!before) return;
    await this.beforeImage.decode();
    if (after) await this.afterImage.decode();
    if (this.shown !== before) return;
    const larger = after ? this.afterImage : this.beforeImage;
    const size = [larger.naturalWidth, larger.naturalHeight];
    const ratio = this.size[0] ? size[0] / this.size[0] : 1;
    this.size = size;
    this.plane.style.width = `${size[0]}px`;
    this.plane.style.height = `${size[1]}px`;
    if (!same) this.mask.resize(this.beforeImage.naturalWidth, this.beforeImage.naturalHeight);
    if (same && !this.fitted) this.place.scale /= ratio;
    if (!same || this.fitted) this.fit();
    else this.draw();
  }

  // How much of the effect is seen, 0 to 1.
  blend(strength) {
    this.afterImage.style.opacity = String(Math.min(1, strength));
  }

  fit() {
    this.fitted = true;
    const [width, height] = this.size;
    if (!width) return;
    const room = this.stage.getBoundingClientRect();
    const scale = Math.min(room.width / width, room.height / height, 1);
    this.place = { scale, x: (room.width - width * scale) / 2, y: (room.height - height * scale) / 2 };
    this.draw();
  }

  // One pixel of the picture on one pixel of the screen.
  actual() {
    this.zoom(1 / devicePixelRatio / this.place.scale);
  }

  // `factor` times larger, around a point of the stage (its middle).
  zoom(factor, x = this.stage.clientWidth / 2, y = this.stage.clientHeight / 2) {
    if (!this.size[0]) return;
    this.fitted = false;
    const smallest = Math.min(1, 32 / Math.max(...this.size));
    const scale = Math.min(LARGEST_ZOOM, Math.max(smallest, this.place.scale * factor));
    const ratio = scale / this.place.scale;
    this.place = { scale, x: x - (x - this.place.x) * ratio, y: y - (y - this.place.y) * ratio };
    this.draw();
  }

  pan(x, y) {
    this.fitted = false;
    this.place.x += x;
    this.place.y += y;
    this.draw();
  }

  draw() {
    const { x, y, scale } = this.place;
    const width = this.size[0] * scale;
    const share = Number(this.controls.divider.value) / Number(this.controls.divider.max);
    const line = share * this.stage.clientWidth;
    const cut = width ? Math.min(1, Math.max(0, (line - x) / width)) : 0;
    this.plane.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
    this.plane.classList.toggle("pixels", scale * devicePixelRatio >= 2);
    this.afterImage.style.clipPath = `inset(0 0 0 ${100 * cut}%)`;
    // The mask lies over `before` only, unless it is painted: over `after` it would hide what was restored.
    const whole = this.afterImage.hidden || this.tool !== "move";
    this.mask.canvas.style.clipPath = whole ? "" : `inset(0 ${100 - 100 * cut}% 0 0)`;
    this.stage.style.setProperty("--line", `${line}px`);
    this.stage.classList.toggle("compares", !this.afterImage.hidden);
    this.controls.zoom.textContent = this.size[0] ? TEXTS.zoom(Math.round(100 * scale * devicePixelRatio)) : "";
  }

  #point(event) {
    const room = this.stage.getBoundingClientRect();
    return [event.clientX - room.left, event.clientY - room.top];
  }

  // Where a point of the stage lies on the mask.
  #onMask([x, y]) {
    const ratio = this.mask.canvas.width / (this.size[0] || 1);
    return [((x - this.place.x) / this.place.scale) * ratio, ((y - this.place.y) / this.place.scale) * ratio];
  }

  #brush() {
    return (Number(this.controls.brushSize.value) / this.place.scale) * (this.mask.canvas.width / (this.size[0] || 1));
  }

  #wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 400), ...this.#point(event));
  }

  #down(event) {
    if (event.button > 0) return;
    const point = this.#point(event);
    try {
      this.stage.setPointerCapture(event.pointerId);
    } catch {
      // the pointer is gone already
    }
    this.pointers.set(event.pointerId, point);
    const line = (Number(this.controls.divider.value) / Number(this.controls.divider.max)) * this.stage.clientWidth;
    const grabbed = !this.afterImage.hidden && Math.abs(point[0] - line) < (event.pointerType === "touch" ? 24 : 10);
    if (this.pointers.size > 1) this.acting = "pinch";
    else if (this.tool !== "move" && !this.mask.hidden) {
      this.acting = "paint";
      this.mask.begin(this.tool === "eraser", this.#brush());
      this.mask.stroke(...this.#onMask(point));
    } else this.acting = grabbed ? "divide" : "pan";
  }

  #move(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const point = this.#point(event);
    if (this.acting === "pinch") {
      const [other] = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      if (other) {
        const distance = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]) || 1;
        this.zoom(distance(point) / distance(last), (point[0] + other[0]) / 2, (point[1] + other[1]) / 2);
        this.pan((point[0] - last[0]) / 2, (point[1] - last[1]) / 2);
      }
    } else if (this.acting === "paint") this.mask.stroke(...this.#onMask(point));
    else if (this.acting === "divide") {
      this.controls.divider.value = String((point[0] / this.stage.clientWidth) * Number(this.controls.divider.max));
      this.draw();
    } else this.pan(point[0] - last[0], point[1] - last[1]);
    this.pointers.set(event.pointerId, point);
  }

  #up(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    if (this.acting === "paint") this.mask.end();
    if (!this.pointers.size) this.acting = null;
  }

  #key(event) {
    const step = 40;
    const act = {
      ArrowLeft: () => this.pan(step, 0),
      ArrowRight: () => this.pan(-step, 0),
      ArrowUp: () => this.pan(0, step),
      ArrowDown: () => this.pan(0, -step),
      "+": () => this.zoom(1.25),
      "=": () => this.zoom(1.25),
      "-": () => this.zoom(0.8),
      0: () => this.fit(),
      1: () => this.actual(),
    }[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act();
  }
}
