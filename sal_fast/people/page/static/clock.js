/** The seconds that a person worked on one picture. */

const PATIENCE = 30;
const now = () => performance.now() / 1000;

export class Clock {
	last = null;
	hidden = false;

	constructor(active = 0, idle = 0) {
		this.active = active;
		this.idle = idle;
	}

	start() {
		this.last = now();
		this.hidden = document.hidden;
	}

	stop() {
		this.tick();
		this.last = null;
	}

	/** Count the time since the last sign of life. Only its first 30 seconds are work. */
	tick() {
		if (this.last === null) return;
		const gap = now() - this.last;
		const active = this.hidden ? 0 : Math.min(gap, PATIENCE);
		this.active += active;
		this.idle += gap - active;
		this.last += gap;
	}

	show(hidden) {
		this.tick();
		this.hidden = hidden;
	}

	get seconds() {
		this.tick();
		return this.active;
	}
}
