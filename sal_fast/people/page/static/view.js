/** The picture and the map on the screen: zoom, pan, and what is drawn over them. */

const NONE = -1;
const pack = (colour, alpha) => ((alpha << 24) | (colour[2] << 16) | (colour[1] << 8) | colour[0]) >>> 0;

export const COLOURS = { own: [255, 46, 138], model: [30, 200, 255] };

export class View {
  constructor(box, picture, map, marks) {
    this.box = box;
    this.canvas = picture;
    this.layer = map;
    this.marks = marks;
    this.picture = picture.getContext("2d", { alpha: false });
    this.map = map.getContext("2d");
    this.levels = [];
    this.mask = null;
    this.suggested = false;
    this.opacity = 0.45;
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.fitted = true;
    this.moved = () => {};
    this.waiting = 0;
    new ResizeObserver(() => this.resize()).observe(box);
    this.resize();
  }

  /** Take the size of the box, in pixels of the screen. */
  resize() {
    const ratio = window.devicePixelRatio || 1;
    const rect = this.box.getBoundingClientRect();
    const width = Math.max(1, Math.round(rect.width * ratio));
    const height = Math.max(1, Math.round(rect.height * ratio));
    this.rect = rect;
    if (width === this.width && height === this.height) return;
    this.ratio = ratio;
    for (const canvas of [this.canvas, this.layer]) {
      canvas.width = width;
      canvas.height = height;
    }
    this.image = this.map.createImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.width = width;
    this.height = height;
    if (this.fitted) this.fit();
    else this.settle();
    this.draw();
  }

  get room() {
    const edge = 12 * this.ratio;
    return [Math.max(1, this.width - 2 * edge), Math.max(1, this.height - 2 * edge)];
  }

  get fitScale() {
    if (!this.mask) return 1;
    return Math.min(this.room[0] / this.mask.width, this.room[1] / this.mask.height);
  }

  show(levels, mask) {
    this.levels = levels;
    this.mask = mask;
    mask?.changed();
    this.fit();
    this.draw();
  }

  fit() {
    this.fitted = true;
    this.scale = this.fitScale;
    if (!this.mask) return;
    this.x = Math.round((this.width - this.mask.width * this.scale) / 2);
    this.y = Math.round((this.height - this.mask.height * this.scale) / 2);
    this.redraw();
  }

  /** Zoom so that what lies under the point of the window stays there. */
  zoom(factor, clientX = this.rect.left + this.rect.width / 2, clientY = this.rect.top + this.rect.height / 2) {
    if (!this.mask) return;
    const scale = Math.min(Math.max(this.scale * factor, this.fitScale * 0.5), Math.max(40 * this.ratio, this.fitScale));
    const sx = (clientX - this.rect.left) * this.ratio;
    const sy = (clientY - this.rect.top) * this.ratio;
    this.x = sx - ((sx - this.x) * scale) / this.scale;
    this.y = sy - ((sy - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.settle();
    this.redraw();
  }

  pan(dx, dy) {
    this.x += dx * this.ratio;
    this.y += dy * this.ratio;
    this.fitted = false;
    this.settle();
    this.redraw();
  }

  /** Keep a part of the picture in sight. */
  settle() {
    if (!this.mask) return;
    const edge = 60 * this.ratio;
    this.x = Math.min(Math.max(this.x, edge - this.mask.width * this.scale), this.width - edge);
    this.y = Math.min(Math.max(this.y, edge - this.mask.height * this.scale), this.height - edge);
  }

  /** Return the place in the picture, in its own pixels, of a point of the window. */
  toPicture(clientX, clientY) {
    return [
      ((clientX - this.rect.left) * this.ratio - this.x) / this.scale,
      ((clientY - this.rect.top) * this.ratio - this.y) / this.scale,
    ];
  }

  /** Return the place in the box, in pixels of the page, of a point of the picture. */
  toBox(x, y) {
    return [(x * this.scale + this.x) / this.ratio, (y * this.scale + this.y) / this.ratio];
  }

  /** Draw all in the next frame. */
  redraw() {
    this.waiting ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.waiting);
    this.waiting = 0;
    const { picture, scale } = this;
    picture.fillStyle = getComputedStyle(this.box).backgroundColor;
    picture.fillRect(0, 0, this.width, this.height);
    if (this.levels.length) {
      let level = this.levels[0];
      for (const other of this.levels) if (other.scale >= scale * 0.98 && other.scale < level.scale) level = other;
      const { bitmap } = level;
      const [zx, zy] = [(this.mask.width * scale) / bitmap.width, (this.mask.height * scale) / bitmap.height];
      const sx = Math.max(0, Math.floor(-this.x / zx));
      const sy = Math.max(0, Math.floor(-this.y / zy));
      const sw = Math.min(bitmap.width, Math.ceil((this.width - this.x) / zx)) - sx;
      const sh = Math.min(bitmap.height, Math.ceil((this.height - this.y) / zy)) - sy;
      picture.imageSmoothingEnabled = scale < 6;
      picture.imageSmoothingQuality = "low";
      if (sw > 0 && sh > 0) {
        picture.drawImage(bitmap, sx, sy, sw, sh, this.x + sx * zx, this.y + sy * zy, sw * zx, sh * zy);
      }
    }
    this.lookUp();
    this.paint(0, 0, this.width, this.height);
    this.moved();
  }

  /** Find for each column of the screen the column of the picture. */
  lookUp() {
    const width = this.mask ? this.mask.width : 0;
    this.columns = new Int32Array(this.width + 2);
    for (let x = 0; x < this.width + 2; x++) {
      const at = Math.floor((x - 2 + 0.5 - this.x) / this.scale);
      this.columns[x] = at >= 0 && at < width ? at : NONE;
    }
  }

  rowOf(y) {
    const at = Math.floor((y + 0.5 - this.y) / this.scale);
    return this.mask && at >= 0 && at < this.mask.height ? at : NONE;
  }

  /** Draw the part of the map that changed. */
  update() {
    const dirty = this.mask?.changed();
    if (!dirty || this.waiting) return;
    const { scale } = this;
    this.paint(
      Math.floor(dirty[0] * scale + this.x) - 1,
      Math.floor(dirty[1] * scale + this.y) - 1,
      Math.ceil((dirty[2] + 1) * scale + this.x) + 3,
      Math.ceil((dirty[3] + 1) * scale + this.y) + 3,
    );
  }

  /** Colour a rectangle of the screen: inside of the map, its outline, or nothing. */
  paint(x0, y0, x1, y1) {
    x0 = Math.max(0, x0);
    y0 = Math.max(0, y0);
    x1 = Math.min(this.width, x1);
    y1 = Math.min(this.height, y1);
    if (x0 >= x1 || y0 >= y1) return;
    const { pixels, columns, mask, width } = this;
    const colour = this.suggested ? COLOURS.model : COLOURS.own;
    const alpha = Math.round(255 * this.opacity);
    const inner = pack(colour, this.suggested ? Math.round(alpha * 0.35) : alpha);
    const stripe = this.suggested ? pack(colour, Math.round(alpha * 1)) : inner;
    const line = pack(colour, alpha ? Math.min(255, Math.round(alpha * 1.6 + 70)) : 0);
    for (let y = y0; y < y1; y++) {
      const start = y * width;
      const row = this.rowOf(y);
      const up = this.rowOf(y - 2);
      const here = row !== NONE && row >= mask.low && row < mask.high;
      const above = up !== NONE && up >= mask.low && up < mask.high;
      if (!here && !above) {
        pixels.fill(0, start + x0, start + x1);
        continue;
      }
      const { data } = mask;
      const base = here ? row * mask.width : NONE;
      const high = above ? up * mask.width : NONE;
      for (let x = x0; x < x1; x++) {
        const column = columns[x + 2];
        const before = columns[x];
        const on = here && column !== NONE ? data[base + column] : 0;
        const left = here && before !== NONE ? data[base + before] : 0;
        const over = above && column !== NONE ? data[high + column] : 0;
        let value = 0;
        if (on !== left || on !== over) value = line;
        else if (on) value = ((x + y) & 15) < 5 ? stripe : inner;
        pixels[start + x] = value;
      }
    }
    this.map.putImageData(this.image, 0, 0, x0, y0, x1 - x0, y1 - y0);
  }

  /** Draw lines and signs over the map: [{kind: "line" | "box" | "in" | "out", points}]. */
  sketch(shapes) {
    // Nothing but numbers and words of this file is put into the text.
    const draw = ({ kind, points }) => {
      const places = points.map(([x, y]) => this.toBox(x, y));
      const dot = (radius, name) => `<circle cx="${places[0][0]}" cy="${places[0][1]}" r="${radius}" class="${name}"/>`;
      const path = (d, name) => `<path d="M${d}" class="${name}"/>`;
      if (kind === "in" || kind === "out") {
        const [x, y] = places[0];
        return dot(8, kind) + path(`${x - 4} ${y}h8` + (kind === "in" ? `M${x} ${y - 4}v8` : ""), "sign");
      }
      const d = places.join("L") + (kind === "box" ? "Z" : "");
      return path(d, "under") + path(d, "over") + (kind === "line" ? dot(6, "dot") : "");
    };
    this.marks.innerHTML = shapes.map(draw).join("");
  }
}
