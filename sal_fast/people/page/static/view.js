/** The picture and the map on the screen: zoom, pan, and what is drawn over them. */

import { clamp } from "./mask.js";

const NONE = -1;
const OWN = [255, 46, 138];
const MODEL = [30, 200, 255];

/** Return a colour as the canvas keeps it in four bytes. */
function pack([red, green, blue], alpha) {
	return ((Math.min(255, Math.round(alpha)) << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

export class View {
	levels = [];
	mask = null;
	suggested = false;
	opacity = 0.45;
	scale = 1;
	x = 0;
	y = 0;
	fitted = true;
	waiting = 0;
	moved = () => {};

	constructor(box, picture, layer, marks) {
		Object.assign(this, { box, canvas: picture, layer, marks });
		this.picture = picture.getContext("2d", { alpha: false });
		this.map = layer.getContext("2d");
		new ResizeObserver(() => this.resize()).observe(box);
		this.resize();
	}

	/** Take the size of the box, in pixels of the screen. */
	resize() {
		const ratio = window.devicePixelRatio || 1;
		this.rect = this.box.getBoundingClientRect();
		const width = Math.max(1, Math.round(this.rect.width * ratio));
		const height = Math.max(1, Math.round(this.rect.height * ratio));
		if (width === this.width && height === this.height) return;
		for (const taken of [this, this.canvas, this.layer]) Object.assign(taken, { width, height });
		this.ratio = ratio;
		this.image = this.map.createImageData(width, height);
		this.pixels = new Uint32Array(this.image.data.buffer);
		if (this.fitted) this.fit();
		else this.settle();
		this.draw();
	}

	get room() {
		const edges = 24 * this.ratio;
		return [Math.max(1, this.width - edges), Math.max(1, this.height - edges)];
	}

	get fitScale() {
		const [width, height] = this.room;
		return Math.min(width / this.mask.width, height / this.mask.height);
	}

	show(levels, mask) {
		this.levels = levels;
		this.mask = mask;
		mask?.changed();
		this.fit();
		this.draw();
	}

	fit() {
		if (!this.mask) return;
		this.fitted = true;
		this.scale = this.fitScale;
		this.x = Math.round((this.width - this.mask.width * this.scale) / 2);
		this.y = Math.round((this.height - this.mask.height * this.scale) / 2);
		this.redraw();
	}

	/** Zoom so that what lies under the point of the window stays there. */
	zoom(factor, clientX, clientY) {
		if (!this.mask) return;
		const most = Math.max(40 * this.ratio, this.fitScale);
		const scale = clamp(this.scale * factor, this.fitScale * 0.5, most);
		const x = clientX === undefined ? this.width / 2 : (clientX - this.rect.left) * this.ratio;
		const y = clientY === undefined ? this.height / 2 : (clientY - this.rect.top) * this.ratio;
		this.x = x - ((x - this.x) * scale) / this.scale;
		this.y = y - ((y - this.y) * scale) / this.scale;
		this.scale = scale;
		this.pan(0, 0);
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
		this.x = clamp(this.x, edge - this.mask.width * this.scale, this.width - edge);
		this.y = clamp(this.y, edge - this.mask.height * this.scale, this.height - edge);
	}

	/** Return the place in the picture, in its own pixels, of a point of the window. */
	toPicture(clientX, clientY) {
		return [
			((clientX - this.rect.left) * this.ratio - this.x) / this.scale,
			((clientY - this.rect.top) * this.ratio - this.y) / this.scale,
		];
	}

	/** Return the place in the box, in pixels of the page, of a point of the picture. */
	toBox([x, y]) {
		return [(x * this.scale + this.x) / this.ratio, (y * this.scale + this.y) / this.ratio];
	}

	/** Draw all in the next frame. */
	redraw() {
		this.waiting ||= requestAnimationFrame(() => this.draw());
	}

	draw() {
		cancelAnimationFrame(this.waiting);
		this.waiting = 0;
		const { picture, scale, width, height, mask } = this;
		picture.fillStyle = getComputedStyle(this.box).backgroundColor;
		picture.fillRect(0, 0, width, height);
		if (this.levels.length) {
			// The smallest of the sizes that has a pixel for each of the screen.
			const { bitmap } = this.levels.findLast((level) => level.scale >= scale * 0.98) ?? this.levels[0];
			picture.imageSmoothingEnabled = scale < 6;
			picture.imageSmoothingQuality = "low";
			picture.drawImage(bitmap, this.x, this.y, mask.width * scale, mask.height * scale);
		}
		// For each column of the screen, and for two before the first, the column of the picture.
		this.columns = Int32Array.from({ length: width + 2 }, (_, i) => this.place(i - 2 - this.x, mask?.width));
		this.paint(0, 0, width, height);
		this.moved();
	}

	/** Return the row or column of the picture for a distance on the screen from the picture's edge. */
	place(distance, length = 0) {
		const at = Math.floor((distance + 0.5) / this.scale);
		return at >= 0 && at < length ? at : NONE;
	}

	/** Draw the part of the map that changed. */
	update() {
		const dirty = this.mask?.changed();
		if (!dirty || this.waiting) return;
		const [x0, y0] = [dirty[0] * this.scale + this.x, dirty[1] * this.scale + this.y];
		const [x1, y1] = [(dirty[2] + 1) * this.scale + this.x, (dirty[3] + 1) * this.scale + this.y];
		this.paint(Math.floor(x0) - 1, Math.floor(y0) - 1, Math.ceil(x1) + 3, Math.ceil(y1) + 3);
	}

	/** Colour a rectangle of the screen: inside of the map, its outline, or nothing. */
	paint(left, top, right, bottom) {
		const { pixels, columns, mask, width, height, suggested } = this;
		const [x0, x1] = [clamp(left, 0, width), clamp(right, 0, width)];
		const [y0, y1] = [clamp(top, 0, height), clamp(bottom, 0, height)];
		if (x0 >= x1 || y0 >= y1) return;
		const alpha = 255 * this.opacity;
		const colour = suggested ? MODEL : OWN;
		const stripe = pack(colour, alpha);
		const inner = pack(colour, suggested ? alpha * 0.35 : alpha);
		const outline = pack(colour, alpha && alpha * 1.6 + 70);
		const marked = (row, column) => (row < 0 || column < 0 ? 0 : mask.data[row * mask.width + column]);
		for (let y = y0; y < y1; y++) {
			const row = this.place(y - this.y, mask?.height);
			const above = this.place(y - 2 - this.y, mask?.height);
			for (let x = x0; x < x1; x++) {
				const on = marked(row, columns[x + 2]);
				let value = on && (((x + y) & 15) < 5 ? stripe : inner);
				if (on !== marked(row, columns[x]) || on !== marked(above, columns[x + 2])) value = outline;
				pixels[y * width + x] = value;
			}
		}
		this.map.putImageData(this.image, 0, 0, x0, y0, x1 - x0, y1 - y0);
	}

	/** Draw lines and signs over the map: [{kind: "line" | "box" | "in" | "out", points}]. */
	sketch(shapes) {
		// Nothing but numbers and words of this file is put into the text.
		const path = (d, name) => `<path d="M${d}" class="${name}"/>`;
		const draw = ({ kind, points }) => {
			const places = points.map((point) => this.toBox(point));
			const [x, y] = places[0];
			const dot = (radius, name) => `<circle cx="${x}" cy="${y}" r="${radius}" class="${name}"/>`;
			if (kind === "in") return dot(8, kind) + path(`${x - 4} ${y}h8m-4-4v8`, "sign");
			if (kind === "out") return dot(8, kind) + path(`${x - 4} ${y}h8`, "sign");
			const d = places.join("L") + (kind === "box" ? "Z" : "");
			return path(d, "under") + path(d, "over") + (kind === "line" ? dot(6, "dot") : "");
		};
		this.marks.innerHTML = shapes.map(draw).join("");
	}
}
