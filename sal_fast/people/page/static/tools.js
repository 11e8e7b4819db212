/** What a mouse, a pen, a finger and the keyboard do on the picture. */

import { clamp } from "./mask.js";

/** The name, the key, what to do, and the lines of the icon. */
export const TOOLS = {
	brush: ["Brush", "B", "Paint over the object.",
		"M20.5 3.5c-3 .8-8.2 5.6-10.4 9l1.8 1.8c3.3-2.3 8-7.6 8.6-10.8zM8.7 13.7c-2.3 0-3.3 1.6-3.5 3.4-.1 "
		+ "1.4-.9 2.2-2.2 2.6 1 .8 2.5 1.2 4 1 2.3-.3 4-1.9 3.9-4.6z"],
	polygon: ["Polygon", "P", "Click the corners. Close it with Enter.", "M12 4l8 6-3 9H7l-3-9z"],
	rectangle: ["Rectangle", "R", "Drag from one corner to the other.", "M4 6h16v12H4z"],
	fill: ["Fill", "F", "Click a hole inside the outline.",
		"M11 4l8 8-7 7-8-7zM11 4L9 2M4.5 12h14M20.5 15c1.3 1.9 2 2.8 2 3.8a2 2 0 01-4 0c0-1 .7-1.9 2-3.8z"],
	box: ["Box", "O", "Drag a box around the object.",
		"M4 9V5h4M16 5h4v4M20 15v4h-4M8 19H4v-4M9 12a3 3 0 106 0 3 3 0 10-6 0"],
	points: ["Points", "T", "Click on the object. Click beside it with Alt or the right button.",
		"M12.5 9a4.5 4.5 0 10-9 0 4.5 4.5 0 109 0M8 7v4M6 9h4M21 17a4 4 0 10-8 0 4 4 0 108 0M15.2 17h3.6"],
	hand: ["Move", "H", "Drag the picture.",
		"M12 3v18M3 12h18M9 6l3-3 3 3M9 18l3 3 3-3M6 9l-3 3 3 3M18 9l3 3-3 3"],
};

const NEAR = 10;
const KEPT = 1000;

/** The last durations of a kind of work, in milliseconds. */
export const times = { stroke: [], next: [] };

export function measured(kind, start) {
	times[kind].push(performance.now() - start);
	times[kind].splice(0, times[kind].length - KEPT);
}

const around = ([x0, y0], [x1, y1]) => [[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
const client = (event) => [event.clientX, event.clientY];

export class Tools {
	name = "brush";
	erases = false;
	radius = 12; // pixels of the page
	corners = [];
	gesture = null;
	space = false;
	pen = false;
	pointers = new Map();
	cursor = null; // the keyboard's pointer
	last = null;

	/**
	 * `can` says what the page allows: work() gives the picture in hand or null, began() and changed() hear of
	 * strokes, rule(box, points) asks the server, say(text) tells the person.
	 */
	constructor(view, ring, cross, can) {
		Object.assign(this, { view, ring, cross, can });
		const heard = {
			pointerdown: (event) => this.down(event),
			pointermove: (event) => this.move(event),
			pointerup: (event) => this.up(event),
			pointercancel: (event) => this.up(event, true),
			pointerleave: () => this.placeRing(null),
			contextmenu: (event) => event.preventDefault(),
			auxclick: (event) => event.preventDefault(),
			dblclick: () => this.close(),
			wheel: (event) => this.wheel(event),
		};
		for (const kind in heard) view.layer.addEventListener(kind, heard[kind], { passive: false });
	}

	get work() {
		return this.can.work();
	}

	/** Return how many pixels of the picture are so many pixels of the page. */
	reach(distance) {
		return (distance * this.view.ratio) / this.view.scale;
	}

	choose(name) {
		this.stop();
		this.name = name;
		this.view.layer.dataset.tool = name;
		this.placeRing(this.at);
	}

	/** Give up what is begun and not finished. Return whether there was something. */
	stop() {
		const begun = this.gesture !== null || this.corners.length > 0;
		if (this.work?.mask?.step) {
			this.work.mask.cancel();
			this.view.update();
		}
		this.gesture = null;
		this.corners = [];
		this.lower(false);
		this.sketch();
		return begun;
	}

	size(radius) {
		this.radius = clamp(radius, 1, 200);
		this.placeRing(this.at);
	}

	// Pointers

	down(event) {
		const { view, pointers } = this;
		const { pointerId, pointerType, button } = event;
		view.rect = view.box.getBoundingClientRect();
		view.layer.focus({ preventScroll: true });
		this.hideCross();
		this.pen ||= pointerType === "pen";
		pointers.set(pointerId, client(event));
		view.layer.setPointerCapture(pointerId);
		if (!this.work?.mask) return;
		const touch = pointerType === "touch";
		if (touch && pointers.size === 2) {
			this.stop();
			this.gesture = { pinch: true, ...this.span() };
		} else if (this.gesture) return;
		else if (button === 1 || this.name === "hand" || this.space || (touch && this.pen)) {
			event.preventDefault();
			this.gesture = { pan: pointerId, at: client(event) };
			view.box.classList.add("grabbed");
		} else if ([0, 2, 5].includes(button)) {
			const other = button > 0 || (event.altKey && this.name === "points");
			this.press(view.toPicture(...client(event)), other, pointerId);
			this.placeRing(client(event));
		}
	}

	move(event) {
		const start = performance.now();
		const { gesture, view, pointers } = this;
		const here = client(event);
		if (pointers.has(event.pointerId)) pointers.set(event.pointerId, here);
		if (event.pointerType !== "touch") this.placeRing(here);
		if (gesture?.pinch) {
			if (pointers.size < 2) return;
			const now = this.span();
			view.pan(now.x - gesture.x, now.y - gesture.y);
			view.zoom(now.distance / gesture.distance, now.x, now.y);
			Object.assign(gesture, now);
		} else if (gesture?.pan === event.pointerId) {
			view.pan(here[0] - gesture.at[0], here[1] - gesture.at[1]);
			gesture.at = here;
		} else if (gesture?.id === event.pointerId) {
			const parts = event.getCoalescedEvents?.() ?? [];
			this.follow((parts.length ? parts : [event]).map(client), start);
		} else if (!gesture) this.follow([here]);
	}

	/** Draw on to points of the window, or show where the next corner would be. */
	follow(points, start = performance.now()) {
		const places = points.map((point) => this.view.toPicture(...point));
		if (!this.gesture) {
			if (this.corners.length) this.sketch(places.at(-1));
			return;
		}
		places.forEach((place) => this.drag(place));
		if (!this.gesture.stroke) return;
		this.view.update();
		measured("stroke", start);
	}

	up({ pointerId }, cancelled = false) {
		this.pointers.delete(pointerId);
		const { gesture } = this;
		if (gesture?.pinch) {
			if (!this.pointers.size) this.gesture = null;
		} else if (gesture?.pan === pointerId) {
			this.gesture = null;
			this.view.box.classList.remove("grabbed");
		} else if (gesture?.id === pointerId) {
			// A stroke that the system ends is kept: undo is there.
			if (gesture.stroke || !cancelled) this.release();
			else this.stop();
		}
	}

	span() {
		const [[ax, ay], [bx, by]] = this.pointers.values();
		return { x: (ax + bx) / 2, y: (ay + by) / 2, distance: Math.max(10, Math.hypot(ax - bx, ay - by)) };
	}

	wheel(event) {
		event.preventDefault();
		const step = event.deltaMode ? event.deltaY * 30 : event.deltaY;
		this.view.zoom(Math.exp(-step * (event.ctrlKey ? 0.01 : 0.0015)), ...client(event));
		this.placeRing(client(event));
	}

	// The tools, in pixels of the picture

	/** Begin at a point. `other` is true for the button that erases while one draws. */
	press(point, other, id) {
		const { work, name } = this;
		const value = this.erases === other ? 1 : 0;
		this.can.began();
		if (name === "points") this.can.rule(null, [...work.state.points, [...this.inside(point), value]]);
		else if (name === "polygon") this.pin(point, value);
		else if (name === "fill") this.fill(point.map(Math.floor), value);
		else if (name === "brush") {
			this.gesture = { id, value, stroke: true, at: point };
			this.last = { radius: this.reach(this.radius), points: [] };
			work.mask.begin(work.state);
			this.drag(point);
			this.view.update();
		} else this.gesture = { id, value, from: point, at: point };
	}

	drag(point) {
		const { gesture, last } = this;
		if (gesture.stroke) {
			this.work.mask.capsule(...gesture.at, ...point, last.radius, gesture.value);
			last.points.push(point);
		}
		gesture.at = point;
		if (!gesture.stroke) this.sketch();
	}

	release() {
		const { stroke, from, at, value } = this.gesture;
		this.gesture = null;
		this.sketch();
		if (stroke) {
			if (this.work.commit()) this.can.changed();
			return;
		}
		if (Math.abs(at[0] - from[0]) < 1 || Math.abs(at[1] - from[1]) < 1) return;
		if (this.name === "box") {
			const [[x0, y0], [x1, y1]] = [this.inside(from), this.inside(at)];
			this.can.rule([Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)], []);
			return;
		}
		this.last = { points: [from, at] };
		this.draw((mask) => mask.polygon(around(from, at), value));
	}

	/** Set a corner of the polygon, or close it at its first corner. */
	pin(point, value) {
		const { corners } = this;
		const distance = (corner) => Math.hypot(point[0] - corner[0], point[1] - corner[1]);
		if (corners.length > 2 && distance(corners[0]) < this.reach(NEAR)) {
			this.close();
			return;
		}
		if (!corners.length) this.value = value;
		if (!corners.length || distance(corners.at(-1)) > 0) corners.push(point);
		this.sketch(point);
	}

	/** Close the polygon and fill it. Return whether there was one. */
	close() {
		const { corners, value } = this;
		if (!corners.length) return false;
		this.corners = [];
		this.sketch();
		this.last = { points: corners };
		if (corners.length < 3) this.can.say("A polygon needs three corners.");
		else this.draw((mask) => mask.polygon(corners, value));
		return true;
	}

	/** Take the last corner away. Return whether there was one. */
	unpin() {
		const corner = this.corners.pop();
		this.sketch();
		return corner !== undefined;
	}

	fill([x, y], value) {
		const { mask } = this.work;
		const { say } = this.can;
		if (x < 0 || y < 0 || x >= mask.width || y >= mask.height) return;
		if (mask.data[y * mask.width + x] === value) {
			say(value ? "This part is marked already." : "There is no marked part here.");
		} else if (value && !mask.any) say("Draw a closed outline first. Then fill it.");
		else {
			let edge = false;
			this.draw(() => {
				edge = mask.fill(x, y, value);
			});
			if (edge && value) {
				say("The fill reached the edge of the picture. If the outline has a gap, press Ctrl+Z.");
			}
		}
	}

	draw(what) {
		const changed = this.work.change(what);
		this.view.update();
		if (changed) this.can.changed();
	}

	inside([x, y]) {
		const { mask } = this.work;
		return [clamp(x, 0, mask.width), clamp(y, 0, mask.height)];
	}

	/** Draw what is begun, and the clicks that the server answered. */
	sketch(point = null) {
		const { gesture, corners, work, name } = this;
		const { box = null, points = [] } = work?.state ?? {};
		const shapes = [];
		const corner = (i) => box.slice(i, i + 2);
		if (gesture?.from) shapes.push({ kind: "box", points: around(gesture.from, gesture.at) });
		else if (box && name === "box") shapes.push({ kind: "box", points: around(corner(0), corner(2)) });
		if (corners.length) shapes.push({ kind: "line", points: point ? [...corners, point] : corners });
		if (name === "points") {
			for (const [x, y, side] of points) shapes.push({ kind: side ? "in" : "out", points: [[x, y]] });
		}
		this.view.sketch(shapes);
	}

	// The ring of the brush, and the keyboard's pointer

	placeRing(at) {
		this.at = at;
		const { ring, view, radius } = this;
		ring.hidden = !at || this.name !== "brush" || !this.work?.mask || this.space;
		if (ring.hidden) return;
		ring.style.width = ring.style.height = `${2 * radius}px`;
		const [x, y] = [at[0] - view.rect.left - radius, at[1] - view.rect.top - radius];
		ring.style.transform = `translate(${x}px, ${y}px)`;
		ring.classList.toggle("erases", this.erases);
	}

	hideCross() {
		this.lower(false);
		this.cursor = null;
		this.cross.hidden = true;
	}

	/** Press the keyboard's pointer, or lift it. */
	lower(yes) {
		if (this.cursor) this.cursor.down = yes;
		this.cross.classList.toggle("down", yes);
	}

	/** Return the keyboard's pointer as a point of the window. */
	get pointed() {
		const { rect } = this.view;
		return [rect.left + this.cursor.x, rect.top + this.cursor.y];
	}

	/** Move the cross-hair by steps in the directions x and y. */
	step(x, y, far) {
		const start = performance.now();
		const { view } = this;
		view.rect = view.box.getBoundingClientRect();
		const { width, height } = view.rect;
		const cursor = (this.cursor ??= { x: width / 2, y: height / 2, down: false });
		cursor.x = clamp(cursor.x + x * (far ? 20 : 2), 0, width);
		cursor.y = clamp(cursor.y + y * (far ? 20 : 2), 0, height);
		this.cross.hidden = false;
		this.cross.style.transform = `translate(${cursor.x}px, ${cursor.y}px)`;
		this.placeRing(this.pointed);
		if (this.work?.mask && (cursor.down || !this.gesture)) this.follow([this.pointed], start);
	}

	/** Press or lift the keyboard's pointer. Return false if the cross-hair is not shown. */
	tap() {
		const { cursor, name, can } = this;
		if (!cursor || !this.work?.mask) return false;
		if (cursor.down) {
			this.lower(false);
			if (this.gesture) this.release();
			can.say("The pointer is lifted.");
		} else if (name !== "hand") {
			this.press(this.view.toPicture(...this.pointed), false, "keys");
			if (!this.gesture) return true;
			this.lower(true);
			can.say("The pointer is down. Move it with the arrow keys, and press Space again to lift it.");
		}
		return true;
	}
}
