/** The map of one picture: a byte for each pixel, the shapes that are drawn into it, and its undo steps. */

const TILE = 256;
const STEPS = 200;
const BYTES = 32e6;

/** Decode the lengths of runs, background first, to bytes. */
export function fromRuns(runs, width, height) {
  const data = new Uint8Array(width * height);
  let at = 0;
  for (let i = 0; i < runs.length; i++) {
    if (i % 2) data.fill(1, at, at + runs[i]);
    at += runs[i];
  }
  return data;
}

/**
 * Enlarge a grid of bytes bilinearly to a picture, and mark what lies strictly above the threshold.
 *
 * Every number is a whole number below 2 to the power of 53, so the cut is exact. In a row the value is linear
 * between two centres of the grid, so one search finds where it crosses the threshold.
 */
export function enlarged(values, w, h, width, height, percent) {
  const data = new Uint8Array(width * height);
  const limit = percent * 255 * 4 * width * height;
  const starts = Array.from({ length: w }, (_, i) => Math.ceil(((2 * i + 1) * width - w) / (2 * w)));
  const row = new Float64Array(w);
  for (let y = 0; y < height; y++) {
    const from = Math.min(Math.max((2 * y + 1) * h - height, 0), (h - 1) * 2 * height);
    const upper = Math.floor(from / (2 * height));
    const part = from - upper * 2 * height;
    const lower = Math.min(upper + 1, h - 1);
    for (let i = 0; i < w; i++) {
      row[i] = values[upper * w + i] * (2 * height - part) + values[lower * w + i] * part;
    }
    const base = y * width;
    const put = (x0, x1) => {
      if (x1 > x0) data.fill(1, base + Math.max(x0, 0), base + Math.min(x1, width));
    };
    if (row[0] * 200 * width > limit) put(0, starts[0]);
    if (row[w - 1] * 200 * width > limit) put(starts[w - 1], width);
    for (let i = 0; i + 1 < w; i++) {
      let low = starts[i];
      let high = starts[i + 1] - 1;
      if (low > high) continue;
      const above = (x) => {
        const along = (2 * x + 1) * w - width - 2 * width * i;
        return (row[i] * 2 * width + (row[i + 1] - row[i]) * along) * 100 > limit;
      };
      const first = above(low);
      const last = above(high);
      if (first && last) put(low, high + 1);
      else if (first !== last) {
        const [left, right] = [low, high + 1];
        while (high - low > 1) {
          const middle = (low + high) >> 1;
          if (above(middle) === first) low = middle;
          else high = middle;
        }
        if (first) put(left, high);
        else put(high, right);
      }
    }
  }
  return data;
}

export class Mask {
  constructor(width, height, data = null) {
    this.width = width;
    this.height = height;
    this.data = data ?? new Uint8Array(width * height);
    this.across = Math.ceil(width / TILE);
    this.down = Math.ceil(height / TILE);
    // Only the rows from `low` up to `high`, without it, can hold marked pixels.
    this.low = data ? 0 : height;
    this.high = data ? height : 0;
    this.dirty = null;
    this.step = null;
    this.past = [];
    this.future = [];
    this.bytes = 0;
  }

  /** Encode the map as lengths of runs, background first. */
  runs() {
    const total = this.data.length;
    const part = this.data.subarray(0, this.high * this.width);
    const runs = [];
    let start = 0;
    let value = 1;
    let from = Math.min(this.low * this.width, part.length);
    for (;;) {
      const at = part.indexOf(value, from);
      if (at < 0) break;
      runs.push(at - start);
      start = from = at;
      value = 1 - value;
    }
    if (value === 0) {
      runs.push(part.length - start);
      start = part.length;
    }
    if (start < total) runs.push(total - start);
    return runs;
  }

  get any() {
    return this.data.subarray(this.low * this.width, this.high * this.width).includes(1);
  }

  /** True if the server may ask whether the map is meant: it is empty, or large, or holds all corners. */
  get odd() {
    const { data, width } = this;
    const corners = [0, width - 1, data.length - width, data.length - 1];
    if (!this.any || corners.every((at) => data[at])) return true;
    return this.runs().reduce((sum, run, i) => sum + (i % 2 ? run : 0), 0) > 0.9 * data.length;
  }

  /** Replace the whole map. The undo steps go, unless a step is open. */
  replace(data) {
    if (this.step) {
      this.keepAll();
      this.data.set(data);
    } else {
      this.data = data;
      this.past = [];
      this.future = [];
      this.bytes = 0;
    }
    this.all();
  }

  /** Say that every pixel may have changed. */
  all() {
    this.mayHold(0, this.height);
    this.touch(0, 0, this.width - 1, this.height - 1);
  }

  /** Open an undo step. `state` is what the page restores together with the pixels. */
  begin(state) {
    this.step = { tiles: new Map(), before: state, after: null };
  }

  /** Pack what the open step keeps. Return whether a pixel changed. */
  settle() {
    const { tiles } = this.step;
    for (const [i, before] of tiles) {
      const packed = this.pack(before, TILE, i);
      const now = this.packed(i);
      if (packed.every((byte, at) => byte === now[at])) tiles.delete(i);
      else tiles.set(i, packed);
    }
    return tiles.size > 0;
  }

  /** Close the open step, which is settled. */
  end(state) {
    const step = this.step;
    this.step = null;
    step.after = state;
    for (const old of this.future) this.bytes -= size(old);
    this.future = [];
    this.past.push(step);
    this.bytes += size(step);
    while (this.past.length > STEPS || (this.bytes > BYTES && this.past.length > 1)) {
      this.bytes -= size(this.past.shift());
    }
  }

  /** Put back what the open step changed, as if it had not begun. */
  cancel() {
    const step = this.step;
    this.step = null;
    for (const [i, before] of step.tiles) {
      const [x, y, w, h] = this.place(i);
      for (let r = 0; r < h; r++) {
        this.data.set(before.subarray(r * TILE, r * TILE + w), (y + r) * this.width + x);
      }
      this.mayHold(y, y + h);
      this.touch(x, y, x + w - 1, y + h - 1);
    }
  }

  undo() {
    return this.move(this.past, this.future, "before");
  }

  redo() {
    return this.move(this.future, this.past, "after");
  }

  move(from, to, which) {
    const step = from.pop();
    if (!step) return null;
    for (const [i, packed] of step.tiles) {
      step.tiles.set(i, this.packed(i));
      this.unpack(i, packed);
    }
    to.push(step);
    return step[which];
  }

  place(i) {
    const x = (i % this.across) * TILE;
    const y = Math.floor(i / this.across) * TILE;
    return [x, y, Math.min(TILE, this.width - x), Math.min(TILE, this.height - y)];
  }

  keep(i) {
    if (this.step.tiles.has(i)) return;
    const [x, y, w, h] = this.place(i);
    const copy = new Uint8Array(TILE * h);
    for (let r = 0; r < h; r++) {
      const from = (y + r) * this.width + x;
      copy.set(this.data.subarray(from, from + w), r * TILE);
    }
    this.step.tiles.set(i, copy);
  }

  keepAll() {
    for (let i = 0; i < this.across * this.down; i++) this.keep(i);
  }

  /** Pack a tile to one bit for each pixel: the undo steps of large pictures stay small. */
  pack(bytes, stride, i, start = 0) {
    const [, , w, h] = this.place(i);
    const bits = new Uint8Array((TILE * h) / 8);
    for (let r = 0; r < h; r++) {
      for (let c = 0; c < w; c++) {
        if (bytes[start + r * stride + c]) bits[(r * TILE + c) >> 3] |= 1 << (c & 7);
      }
    }
    return bits;
  }

  packed(i) {
    const [x, y] = this.place(i);
    return this.pack(this.data, this.width, i, y * this.width + x);
  }

  unpack(i, bits) {
    const [x, y, w, h] = this.place(i);
    for (let r = 0; r < h; r++) {
      const to = (y + r) * this.width + x;
      for (let c = 0; c < w; c++) this.data[to + c] = (bits[(r * TILE + c) >> 3] >> (c & 7)) & 1;
    }
    this.mayHold(y, y + h);
    this.touch(x, y, x + w - 1, y + h - 1);
  }

  mayHold(low, high) {
    if (low < this.low) this.low = low;
    if (high > this.high) this.high = high;
  }

  touch(x0, y0, x1, y1) {
    const dirty = this.dirty;
    if (!dirty) {
      this.dirty = [x0, y0, x1, y1];
      return;
    }
    if (x0 < dirty[0]) dirty[0] = x0;
    if (y0 < dirty[1]) dirty[1] = y0;
    if (x1 > dirty[2]) dirty[2] = x1;
    if (y1 > dirty[3]) dirty[3] = y1;
  }

  /** Return the rectangle that changed since the last call, or null. */
  changed() {
    const dirty = this.dirty;
    this.dirty = null;
    return dirty;
  }

  /** Set the pixels x0 to x1 of one row, both included. */
  span(y, x0, x1, value) {
    if (y < 0 || y >= this.height) return;
    if (x0 < 0) x0 = 0;
    if (x1 >= this.width) x1 = this.width - 1;
    if (x0 > x1) return;
    if (this.step) {
      const first = Math.floor(y / TILE) * this.across;
      for (let i = x0 >> 8; i <= x1 >> 8; i++) this.keep(first + i);
    }
    this.data.fill(value, y * this.width + x0, y * this.width + x1 + 1);
    if (value) this.mayHold(y, y + 1);
    this.touch(x0, y, x1, y);
  }

  /** Set the pixels whose centre is no farther than `radius` from the line from a to b. */
  capsule(ax, ay, bx, by, radius, value) {
    const dx = bx - ax;
    const dy = by - ay;
    const length = dx * dx + dy * dy;
    const clamp = (t) => Math.min(Math.max(t, 0), 1);
    const inside = (x, cy) => {
      const cx = x + 0.5;
      const t = length ? clamp(((cx - ax) * dx + (cy - ay) * dy) / length) : 0;
      const ex = cx - (ax + t * dx);
      const ey = cy - (ay + t * dy);
      return ex * ex + ey * ey <= radius * radius;
    };
    const bottom = Math.min(this.height - 1, Math.ceil(Math.max(ay, by) + radius));
    let x0 = Infinity;
    let x1 = -Infinity;
    for (let y = Math.max(0, Math.floor(Math.min(ay, by) - radius) - 1); y <= bottom; y++) {
      const cy = y + 0.5;
      // The row's nearest point to the line is at this pixel. From there the ends of the last row are moved.
      const near = Math.floor(ax + (dy ? clamp((cy - ay) / dy) : 0) * dx);
      const seed = [near, near - 1, near + 1].find((x) => inside(x, cy));
      if (seed === undefined) continue;
      x0 = Math.min(x0, seed);
      x1 = Math.max(x1, seed);
      while (inside(x0 - 1, cy)) x0--;
      while (!inside(x0, cy)) x0++;
      while (inside(x1 + 1, cy)) x1++;
      while (!inside(x1, cy)) x1--;
      this.span(y, x0, x1, value);
    }
  }

  /** Set the pixels whose centre lies in the rectangle. */
  rectangle(x0, y0, x1, y1, value) {
    const left = Math.ceil(Math.min(x0, x1) - 0.5);
    const right = Math.floor(Math.max(x0, x1) - 0.5);
    const top = Math.max(0, Math.ceil(Math.min(y0, y1) - 0.5));
    const bottom = Math.min(this.height - 1, Math.floor(Math.max(y0, y1) - 0.5));
    for (let y = top; y <= bottom; y++) this.span(y, left, right, value);
  }

  /** Set the pixels whose centre lies in the polygon by the even-odd rule. */
  polygon(points, value) {
    const rows = points.map((point) => point[1]);
    const top = Math.max(0, Math.floor(Math.min(...rows)));
    const bottom = Math.min(this.height - 1, Math.ceil(Math.max(...rows)));
    for (let y = top; y <= bottom; y++) {
      const cy = y + 0.5;
      const crossings = [];
      for (let i = 0, j = points.length - 1; i < points.length; j = i++) {
        const [xi, yi] = points[i];
        const [xj, yj] = points[j];
        if (yi > cy !== yj > cy) crossings.push(((xj - xi) * (cy - yi)) / (yj - yi) + xi);
      }
      crossings.sort((a, b) => a - b);
      for (let i = 0; i + 1 < crossings.length; i += 2) {
        this.span(y, Math.ceil(crossings[i] - 0.5), Math.ceil(crossings[i + 1] - 0.5) - 1, value);
      }
    }
  }

  /** Set the part that is joined to a pixel over its four sides. Return whether it reaches the picture's edge. */
  fill(x, y, value) {
    const { data, width, height } = this;
    const old = 1 - value;
    const stack = [x, y];
    let edge = false;
    while (stack.length) {
      const row = stack.pop();
      const from = stack.pop();
      const base = row * width;
      if (data[base + from] !== old) continue;
      let left = from;
      let right = from;
      while (left > 0 && data[base + left - 1] === old) left--;
      while (right < width - 1 && data[base + right + 1] === old) right++;
      this.span(row, left, right, value);
      if (left === 0 || right === width - 1 || row === 0 || row === height - 1) edge = true;
      for (const next of [row - 1, row + 1]) {
        if (next < 0 || next >= height) continue;
        for (let at = left, open = false; at <= right; at++) {
          const joined = data[next * width + at] === old;
          if (joined && !open) stack.push(at, next);
          open = joined;
        }
      }
    }
    return edge;
  }

  clear() {
    this.rectangle(0, this.low, this.width, this.high, 0);
    this.low = this.height;
    this.high = 0;
  }

  invert() {
    this.keepAll();
    for (let i = 0; i < this.data.length; i++) this.data[i] ^= 1;
    this.all();
  }
}

function size(step) {
  let bytes = 0;
  for (const packed of step.tiles.values()) bytes += packed.length;
  return bytes;
}
