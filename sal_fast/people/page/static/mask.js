/** The map of one picture: a byte for each pixel, the shapes drawn into it, and its undo steps. */

const STEPS = 200;
const MOST = 4e6; // numbers in all undo steps together

export const clamp = (value, least, most) => Math.min(Math.max(value, least), most);

/** Write a map, which is given as lengths of runs with the background first, into bytes. */
export function fromRuns(runs, data) {
	let at = 0;
	runs.forEach((length, i) => data.fill(i % 2, at, (at += length)));
	return data;
}

export function toRuns(data) {
	const runs = [];
	let value = 1;
	for (let start = 0; start < data.length; value = 1 - value) {
		const at = data.indexOf(value, start);
		const end = at < 0 ? data.length : at;
		runs.push(end - start);
		start = end;
	}
	return runs;
}

/**
 * Enlarge a grid of bytes bilinearly to a picture, and mark what lies strictly above the threshold.
 *
 * Every number is a whole number below 2 to the power of 53, so the cut is exact. In a row the value is
 * linear between two centres of the grid, so one search finds where it crosses the threshold.
 */
export function enlarged(grid, width, height, percent) {
	const { values, width: w, height: h } = grid;
	const data = new Uint8Array(width * height);
	const limit = percent * 255 * 4 * width * height;
	const starts = Array.from({ length: w }, (_, i) => Math.ceil(((2 * i + 1) * width - w) / (2 * w)));
	const row = new Float64Array(w);
	for (let y = 0; y < height; y++) {
		const from = clamp((2 * y + 1) * h - height, 0, (h - 1) * 2 * height);
		const upper = Math.floor(from / (2 * height));
		const part = from - upper * 2 * height;
		const lower = Math.min(upper + 1, h - 1);
		for (let i = 0; i < w; i++) {
			row[i] = values[upper * w + i] * (2 * height - part) + values[lower * w + i] * part;
		}
		const mark = (x0, x1) => data.fill(1, y * width + Math.max(x0, 0), y * width + clamp(x1, 0, width));
		if (row[0] * 200 * width > limit) mark(0, starts[0]);
		if (row[w - 1] * 200 * width > limit) mark(starts[w - 1], width);
		for (let i = 0; i + 1 < w; i++) {
			const above = (x) => {
				const along = (2 * x + 1) * w - width - 2 * width * i;
				return (row[i] * 2 * width + (row[i + 1] - row[i]) * along) * 100 > limit;
			};
			const [left, right] = [starts[i], starts[i + 1]];
			if (left === right) continue;
			const first = above(left);
			if (first === above(right - 1)) {
				if (first) mark(left, right);
				continue;
			}
			let [low, high] = [left, right - 1];
			while (high - low > 1) {
				const middle = (low + high) >> 1;
				if (above(middle) === first) low = middle;
				else high = middle;
			}
			if (first) mark(left, high);
			else mark(high, right);
		}
	}
	return data;
}

export class Mask {
	dirty = null;
	encoded = null;
	step = null;
	past = [];
	future = [];

	constructor(width, height, data) {
		this.width = width;
		this.height = height;
		this.data = data ?? new Uint8Array(width * height);
	}

	/** Return the map as lengths of runs, background first. */
	get runs() {
		return (this.encoded ??= toRuns(this.data));
	}

	get any() {
		return this.data.includes(1);
	}

	/** True if the server may ask whether the map is meant: it is empty, or large, or holds all corners. */
	get odd() {
		const { data, width } = this;
		const corners = [0, width - 1, data.length - width, data.length - 1];
		const marked = this.runs.reduce((sum, run, i) => sum + (i % 2) * run, 0);
		return !marked || marked > 0.9 * data.length || corners.every((at) => data[at]);
	}

	/** Say that pixels of a rectangle changed; x1 and y1 belong to it. */
	touch(x0, y0, x1, y1) {
		this.encoded = null;
		const old = this.dirty ?? [x0, y0, x1, y1];
		this.dirty = [Math.min(old[0], x0), Math.min(old[1], y0), Math.max(old[2], x1), Math.max(old[3], y1)];
	}

	/** Say that every pixel may have changed. */
	touchAll() {
		this.touch(0, 0, this.width - 1, this.height - 1);
	}

	/** Return the rectangle that changed since the last call, or null. */
	changed() {
		const { dirty } = this;
		this.dirty = null;
		return dirty;
	}

	// Undo steps

	/** Open a step. `state` is what the page restores together with the pixels. */
	begin(state) {
		this.step = { before: { runs: this.runs, state } };
	}

	/** True if the open step changed a pixel. */
	get differs() {
		const { runs } = this.step.before;
		return this.runs.length !== runs.length || this.runs.some((length, i) => length !== runs[i]);
	}

	/** Close the open step and keep it. */
	end(state) {
		this.past.push({ ...this.step, after: { runs: this.runs, state } });
		this.step = null;
		this.future = [];
		let numbers = 0;
		const from = this.past.findLastIndex((step, i) => {
			numbers += step.before.runs.length;
			return numbers > MOST || i < this.past.length - STEPS;
		});
		this.past.splice(0, Math.min(from + 1, this.past.length - 1));
	}

	/** Put back what the open step changed, as if it had not begun. */
	cancel() {
		this.restore(this.step.before.runs);
		this.step = null;
	}

	restore(runs) {
		fromRuns(runs, this.data);
		this.touchAll();
		this.encoded = runs;
	}

	/** Undo a step, or do it again. Return the state that belongs to the pixels, or null. */
	move(redo) {
		const [from, to] = redo ? [this.future, this.past] : [this.past, this.future];
		const step = from.pop();
		if (!step) return null;
		to.push(step);
		const { runs, state } = redo ? step.after : step.before;
		this.restore(runs);
		return state;
	}

	/** Replace the whole map. The undo steps go, unless a step is open. */
	replace(data) {
		this.data = data;
		if (!this.step) [this.past, this.future] = [[], []];
		this.touchAll();
	}

	// Shapes

	/** Set the pixels x0 to x1 of one row, both included. */
	span(y, x0, x1, value) {
		const [left, right] = [Math.max(x0, 0), Math.min(x1, this.width - 1)];
		if (y < 0 || y >= this.height || left > right) return;
		this.data.fill(value, y * this.width + left, y * this.width + right + 1);
		this.touch(left, y, right, y);
	}

	/** Set the pixels whose centre is no farther than `radius` from the line from a to b. */
	capsule(ax, ay, bx, by, radius, value) {
		const [dx, dy] = [bx - ax, by - ay];
		const length = dx * dx + dy * dy;
		const inside = (x, cy) => {
			const cx = x + 0.5;
			const t = length ? clamp(((cx - ax) * dx + (cy - ay) * dy) / length, 0, 1) : 0;
			const [ex, ey] = [cx - (ax + t * dx), cy - (ay + t * dy)];
			return ex * ex + ey * ey <= radius * radius;
		};
		const bottom = Math.min(this.height - 1, Math.ceil(Math.max(ay, by) + radius));
		let [x0, x1] = [Infinity, -Infinity];
		for (let y = Math.max(0, Math.floor(Math.min(ay, by) - radius) - 1); y <= bottom; y++) {
			const cy = y + 0.5;
			// The row's nearest point to the line is at this pixel. From there the ends of the last row move.
			const near = Math.floor(ax + (dy ? clamp((cy - ay) / dy, 0, 1) : 0) * dx);
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

	/** Set the pixels whose centre lies in the polygon by the even-odd rule. */
	polygon(points, value) {
		const rows = points.map((point) => point[1]);
		const bottom = Math.min(this.height - 1, Math.ceil(Math.max(...rows)));
		for (let y = Math.max(0, Math.floor(Math.min(...rows))); y <= bottom; y++) {
			const cy = y + 0.5;
			const crossings = [];
			points.forEach(([xi, yi], i) => {
				const [xj, yj] = points.at(i - 1);
				if (yi > cy !== yj > cy) crossings.push(((xj - xi) * (cy - yi)) / (yj - yi) + xi);
			});
			crossings.sort((a, b) => a - b);
			for (let i = 0; i < crossings.length; i += 2) {
				this.span(y, Math.ceil(crossings[i] - 0.5), Math.ceil(crossings[i + 1] - 0.5) - 1, value);
			}
		}
	}

	/** Set the part that is joined to a pixel over its four sides. Return whether it reaches an edge. */
	fill(x, y, value) {
		const { data, width, height } = this;
		const old = 1 - value;
		const stack = [[x, y]];
		let edge = false;
		while (stack.length) {
			const [from, row] = stack.pop();
			const base = row * width;
			if (data[base + from] !== old) continue;
			let [left, right] = [from, from];
			while (left > 0 && data[base + left - 1] === old) left--;
			while (right < width - 1 && data[base + right + 1] === old) right++;
			this.span(row, left, right, value);
			edge ||= left === 0 || right === width - 1 || row === 0 || row === height - 1;
			for (const next of [row - 1, row + 1]) {
				if (next < 0 || next >= height) continue;
				for (let at = left, open = false; at <= right; at++) {
					const joined = data[next * width + at] === old;
					if (joined && !open) stack.push([at, next]);
					open = joined;
				}
			}
		}
		return edge;
	}

	clear() {
		this.data.fill(0);
		this.touchAll();
	}

	invert() {
		const { data } = this;
		for (let i = 0; i < data.length; i++) data[i] ^= 1;
		this.touchAll();
	}
}
