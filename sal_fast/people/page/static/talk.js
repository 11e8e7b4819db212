/** Requests to the server. What cannot be sent is kept in the browser, and sent in order when it can be. */

const PAUSE = 1000;
export const wait = (ms = PAUSE) => new Promise((done) => setTimeout(done, ms));

export class Refused extends Error {
	constructor(status, reply) {
		super(reply.error ?? `The server refused this (${status}).`);
		this.status = status;
		this.reply = reply;
	}
}

class Away extends Error {}

/** Send an object with POST, or nothing with GET. */
export async function send(path, object) {
	let response;
	let text;
	try {
		const body = JSON.stringify(object);
		response = await fetch(path, {
			cache: "no-store",
			// A small request outlives the page.
			...(body && { method: "POST", body, keepalive: body.length < 30000 }),
		});
		text = await response.text();
	} catch {
		throw new Away();
	}
	let reply = {};
	try {
		reply = JSON.parse(text);
	} catch {
		if (response.ok) throw new Away();
		if (text && !text.startsWith("<")) reply.error = text;
	}
	if ([502, 503, 504].includes(response.status)) throw new Away();
	if (!response.ok) throw new Refused(response.status, reply);
	return reply;
}

// The answers that are not sent yet, as the browser keeps them when the page is closed.

const base = new Promise((done, fail) => {
	const opening = indexedDB.open("sal-fast", 1);
	opening.onupgradeneeded = () => opening.result.createObjectStore("unsent", { keyPath: "id" });
	opening.onsuccess = () => done(opening.result);
	opening.onerror = fail;
});

async function stored(what) {
	try {
		const deal = (await base).transaction("unsent", "readwrite");
		const request = what(deal.objectStore("unsent"));
		return await new Promise((done, fail) => {
			deal.oncomplete = () => done(request.result);
			deal.onerror = deal.onabort = fail;
		});
	} catch {
		return [];
	}
}

export class Talk {
	isAway = false;
	items = [];
	run = null;
	busy = null;
	last = 0;

	/** `told(item, reply, error)` hears what became of an item, `away(bool, waiting)` of the connection. */
	constructor(told, away) {
		this.told = told;
		this.away = away;
	}

	lost(yes) {
		this.isAway = yes;
		this.away(yes, this.items.filter((item) => item.what !== "draft").length);
	}

	/** Send a request until the server answers it. */
	async ask(path, body) {
		for (;;) {
			try {
				const reply = await send(path, body);
				if (this.isAway) this.lost(false);
				return reply;
			} catch (error) {
				if (!(error instanceof Away)) throw error;
				this.lost(true);
				await wait();
			}
		}
	}

	/** Take up what an earlier page of this run could not send. */
	async recall(run) {
		this.run = run;
		const old = (await stored((store) => store.getAll())).filter((item) => item.run === run);
		this.items = [...old, ...this.items];
		this.drain();
	}

	/** Put an answer, a withdrawal or a draft in the queue. It takes the place of an older draft. */
	put(what, key, body) {
		this.last = Math.max(Date.now() * 1000, this.last + 1);
		const item = { id: this.last, run: this.run, what, key, body };
		for (const old of this.items) {
			if (old.key === key && old.what === "draft" && old !== this.sending) this.forget(old);
		}
		this.items.push(item);
		stored((store) => store.put(item));
		this.drain();
		return item;
	}

	forget(item) {
		this.items = this.items.filter((other) => other !== item);
		stored((store) => store.delete(item.id));
	}

	/** Return the keys whose answer is on its way. */
	get answered() {
		return new Set(this.items.filter((item) => item.what === "answer").map((item) => item.key));
	}

	/** Send the queue, one after the other. Resolve when it is empty. */
	drain() {
		this.busy ??= this.sendAll().finally(() => {
			this.busy = null;
		});
		return this.busy;
	}

	async sendAll() {
		let failures = 0;
		while (this.items.length) {
			const item = (this.sending = this.items[0]);
			let reply = null;
			let refused = null;
			try {
				reply = await send(`/api/${item.what}/${encodeURIComponent(item.key)}`, item.body);
			} catch (error) {
				if (error instanceof Away || (error.status >= 500 && ++failures < 5)) {
					this.lost(true);
					await wait();
					continue;
				}
				refused = error;
			}
			failures = 0;
			this.sending = null;
			this.forget(item);
			if (this.isAway) this.lost(false);
			this.told(item, reply, refused);
		}
	}
}
