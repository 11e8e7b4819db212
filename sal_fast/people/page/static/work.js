/** One picture in a person's hands: its pixels, what was chosen and drawn so far, and the time it took. */

import { Clock } from "./clock.js";
import { Mask, enlarged, fromRuns } from "./mask.js";

/** Where the map on the screen is from, if a hand touched it, and the clicks of the rule that made it. */
const NOTHING = Object.freeze({ origin: null, touched: false, hidden: false, points: [], box: null });
export const EMPTY = { ...NOTHING, hidden: true };

let worker = null;

function load(message) {
	worker ??= new Worker(new URL("loader.js", import.meta.url), { type: "module" });
	return new Promise((done) => {
		const { port1, port2 } = new MessageChannel();
		port1.onmessage = ({ data }) => {
			port1.close();
			done(data);
		};
		worker.postMessage(message, [port2]);
	});
}

export class Work {
	percent = 50;
	levels = [];
	state = NOTHING;
	grids = new Map();

	constructor(picture, saved) {
		Object.assign(this, picture);
		this.label = saved?.label ?? picture.given?.label ?? null;
		this.note = saved?.note ?? "";
		this.skipped = saved?.skipped ?? false;
		this.reason = this.skipped ? saved.reason : "";
		this.classSeconds = saved?.class_seconds ?? null;
		this.strokeSeconds = saved?.stroke_seconds ?? null;
		this.clock = new Clock(saved?.seconds, saved?.idle);
		this.first = saved?.runs && !saved.skipped ? saved : null;
		if (this.first) {
			const { kind } = saved;
			const origin = { drawn: null, corrected: "model", accepted: "model" };
			this.state = { ...NOTHING, origin: kind in origin ? origin[kind] : kind, touched: kind === "corrected" };
		} else if (saved) this.state = EMPTY;
		else if (this.suggestion !== null) this.state = { ...NOTHING, origin: "model" };
	}

	/** Return the class whose map the model proposes here: the one chosen, or else the largest. */
	get proposed() {
		const { classes, shares } = this.suggested ?? { classes: [] };
		if (this.label !== null) return classes.includes(this.label) ? this.label : null;
		return classes.length ? classes[shares.indexOf(Math.max(...shares))] : null;
	}

	get suggestion() {
		return this.wants_map && this.proposed !== null ? this.suggested.classes.indexOf(this.proposed) : null;
	}

	get grid() {
		const { suggestion: at, suggested, grids } = this;
		if (!grids.has(at)) {
			const values = Uint8Array.from(atob(suggested.values[at]), (letter) => letter.charCodeAt(0));
			grids.set(at, { values, width: suggested.width, height: suggested.height });
		}
		return grids.get(at);
	}

	/** True while the model's map is on the screen as it is. */
	get untouched() {
		return this.state.origin === "model" && !this.state.touched;
	}

	/** True if a hand or a rule made the map on the screen. */
	get own() {
		return !this.untouched && (this.state.origin !== null || this.state.touched || this.mask.any);
	}

	/** Fetch and decode the picture and the map to begin with. Return false while the server is away. */
	async load(room) {
		const { key, width, height, percent, first } = this;
		const grid = !first && this.untouched ? this.grid : null;
		const reply = await load({ key, width, height, room, percent, grid, runs: first?.runs });
		if (reply.away) return false;
		this.first = null;
		this.levels = reply.levels;
		this.error = reply.error;
		this.mask = new Mask(width, height, reply.mask);
		if (!first && !this.wants_map) this.state = NOTHING;
		if (this.closed) this.close();
		return true;
	}

	close() {
		this.closed = true;
		this.levels.forEach((level) => level.bitmap.close());
		this.levels = [];
		this.mask = null;
		this.grids.clear();
	}

	/** Put the model's map of the class on the screen, or an empty one where the model has none. */
	propose() {
		const { width, height, percent } = this;
		const has = this.suggestion !== null && !this.state.hidden;
		this.state = { ...NOTHING, hidden: this.state.hidden, origin: has ? "model" : null };
		this.mask.replace(has ? enlarged(this.grid, width, height, percent) : new Uint8Array(width * height));
	}

	/** Change the pixels in one undo step. `state` says what the map is afterwards. */
	change(draw, state) {
		this.mask.begin(this.state);
		draw(this.mask);
		return this.commit(state);
	}

	/** Close the open step. A stroke that changed no pixel is none. */
	commit(state) {
		const { mask } = this;
		const next = { ...this.state, touched: true, ...state };
		if (mask.differs || (state && JSON.stringify(next) !== JSON.stringify(this.state))) {
			this.state = next;
			mask.end(next);
			return true;
		}
		mask.step = null;
		return false;
	}

	fromRule(origin, runs, points, box) {
		this.change((mask) => mask.restore(runs), { origin, touched: false, points, box });
	}

	undo(redo) {
		const state = this.mask.move(redo);
		this.state = state ?? this.state;
		return state !== null;
	}

	/** Describe all in the words of the server. */
	saved() {
		const any = this.wants_map && this.mask?.any;
		const { origin, touched } = this.state;
		const made = origin === null ? "drawn" : touched ? "corrected" : origin === "model" ? "accepted" : origin;
		return {
			label: this.label,
			skipped: false,
			reason: "",
			note: this.note,
			kind: any ? made : null,
			runs: any ? this.mask.runs : null,
			seconds: this.clock.seconds,
			idle: this.clock.idle,
			class_seconds: this.classSeconds,
			stroke_seconds: this.strokeSeconds,
		};
	}
}
