/** The labelling page: which picture is in hand, what buttons and keys do, and what the person is told. */

import { clamp } from "./mask.js";
import { Refused, Talk, send as post, wait } from "./talk.js";
import { TOOLS, Tools, measured, times } from "./tools.js";
import { View } from "./view.js";
import { EMPTY, Work } from "./work.js";

const MANY = 9;
const PENDING = 500; // milliseconds after a change until the draft is sent
const BY_HAND = ["brush", "polygon", "rectangle", "fill"];
const FOR_ASK = {
	brush: BY_HAND,
	box: ["box", ...BY_HAND],
	points: ["points", ...BY_HAND],
	mixed: [...BY_HAND, "box", "points"],
	accept: [],
};
const RULES = {
	grabcut: "the colours (GrabCut)",
	box: "the box itself",
	model: "the model’s map",
	segmenter: "the segmenter",
};
const KINDS = {
	drawn: "drawn by hand",
	corrected: "corrected",
	accepted: "the model’s map, accepted",
	box: "made from a box",
	points: "made from points",
};
const REASONS = [
	"None of the classes fits.",
	"More than one class fits.",
	"The picture is too unclear.",
	"I do not know.",
	"The picture is broken.",
];
const PURPOSES = { "classes first": "First some classes", "maps of test images": "Maps of test pictures" };
const LOOKS = { opacity: 45, brightness: 100, contrast: 100 };
const STEP_ICONS = {
	undo: "M8 5L4 9l4 4M4 9h10a5.5 5.5 0 010 11H9",
	redo: "M16 5l4 4-4 4M20 9H10a5.5 5.5 0 000 11h5",
	clear: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.5 11v5M13.5 11v5",
	invert: "M20.5 12a8.5 8.5 0 10-17 0 8.5 8.5 0 1017 0M12 4v16M15 5v14M18 7v10",
};
const DARK = matchMedia("(prefers-color-scheme: dark)");

/** The element with an id: `$.modelText` is the one called model-text. */
const $ = new Proxy({}, {
	get: (_, name) => document.getElementById(name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)),
});
const store = {
	get: (name) => localStorage.getItem(`sal-fast ${name}`),
	set: (name, value) => localStorage.setItem(`sal-fast ${name}`, value),
};

let person = store.get("person");
let state = null; // what the server says of the run
let current = null; // the picture on the screen
let aside = null; // the picture that waits while an earlier answer is looked at
let ahead = []; // pictures that are ready
let mine = []; // this person's answers, oldest first
let filling = null;
let nothingLeft = false;
let saving = null; // the answer that the page waits for before it goes on
let draftTimer = 0;
let ruleCalls = 0;
let polling = 0;
let hot = -1; // the class that the search points at
let chosenTool = null;
let lastActive = performance.now();

const view = new View($.stage, $.picture, $.map, $.marks);
const talk = new Talk(told, away);
const tools = new Tools(view, $.ring, $.cross, { work: inHand, began, changed, rule: askRule, say });

const held = () => [current, aside, ...ahead].filter(Boolean);
const heldKeys = () => held().filter((work) => !work.reopened || !work.answer).map((work) => work.key);
const who = () => `person=${encodeURIComponent(person ?? "")}&query=${state?.query ?? ""}`;
const signed = (more) => ({ person, query: state.query, ...more });
const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;
const percent = (share) => `${Math.round(share * 100)} %`;
const focusPicture = () => $.map.focus({ preventScroll: true });
const opened = () => document.querySelector("dialog[open]");

/** Return the picture that can be labelled now, or null. */
function inHand() {
	return current && !saving && !current.votes ? current : null;
}

function time(seconds) {
	if (seconds < 90) return `${Math.round(seconds)} s`;
	if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
	return `${(seconds / 3600).toFixed(1)} h`;
}

/** Make an element. Texts are never read as HTML. */
function make(tag, fields, ...inside) {
	const made = Object.assign(document.createElement(tag), tag === "button" && { type: "button" });
	const { data, ...others } = typeof fields === "object" ? fields : { textContent: fields };
	Object.assign(made, others);
	Object.assign(made.dataset, data);
	made.append(...inside);
	return made;
}

/** Write texts: {name of the element: text}. */
function write(texts) {
	for (const name in texts) $[name].textContent = texts[name];
}

/** Hide elements or show them: {name of the element: whether it is hidden}. */
function hide(those) {
	for (const name in those) $[name].hidden = those[name];
}

function press(button, yes) {
	button.ariaPressed = Boolean(yes);
}

// What the person is told

function say(status) {
	write({ status });
}

function away(yes, waiting) {
	const waits = waiting ? ` ${count(waiting, "answer waits", "answers wait")}.` : "";
	const text = "The server does not answer. Go on: your work is kept here, and sent when it is back.";
	hide({ away: !yes });
	write({ away: yes ? text + waits : "" });
	if (yes && saving) goOn();
}

/** Wait for an answer. Say what the server refused; then the result is null. */
async function heard(promise) {
	try {
		return await promise;
	} catch (error) {
		refused(error);
		return null;
	}
}

function refused(error) {
	if (!(error instanceof Refused)) throw error;
	say(error.message);
	// Another query has begun.
	if (error.status === 410) poll();
}

function heading() {
	const { counts, rounds, purpose, run, seconds_each: each } = state;
	document.title = `${run}: labelling`;
	const parts = [];
	if (purpose !== "round") parts.push(PURPOSES[purpose] ?? purpose);
	else if (rounds.total) parts.push(`Round ${Math.min(rounds.done + 1, rounds.total)} of ${rounds.total}`);
	if (rounds.accuracy !== null) parts.push(`accuracy ${percent(rounds.accuracy)}`);
	if (rounds.dice !== null) parts.push(`Dice ${rounds.dice.toFixed(2)}`);
	write({ title: run, who: person, round: parts.join(" · ") });
	hide({ who: false, answers: state.query === null, progress: !counts, ties: !counts?.ties });
	if (!counts) return;
	const { images, answered, skipped, ties } = counts;
	const left = Math.max(0, images - answered);
	Object.assign($.bar, { max: Math.max(1, images), value: answered });
	const figures = [`${left} left`];
	if (skipped) figures.unshift(`${skipped} skipped`);
	if (each !== null) figures.push(`${time(each)} each`);
	if (each !== null && left) figures.push(`about ${time(left * each)} more`);
	write({
		count: `${answered} of ${images} done`,
		figures: `· ${figures.join(" · ")}`,
		ties: `People disagree on ${count(ties, "picture")}`,
	});
}

// The picture in hand

/** Put a picture on the screen. `from` is the time of the key that asked for it. */
function show(work, from = null) {
	current?.clock.stop();
	tools.stop();
	if (current && current !== work && current !== aside && !ahead.includes(current)) {
		view.levels = [];
		current.close();
	}
	current = work;
	place();
	if (!work) {
		view.show([], null);
		return;
	}
	work.clock.start();
	hide({ blank: !work.error });
	write({ blank: work.error ?? "" });
	const here = toolsHere();
	tools.choose(here.includes(chosenTool) ? chosenTool : here[0]);
	view.suggested = work.untouched;
	$.search.value = "";
	hot = -1;
	// The panel comes first: it may change the size of the stage.
	panel();
	view.resize();
	view.show(work.levels, work.mask);
	if (!opened()) focusPicture();
	if (from === null) return;
	requestAnimationFrame(() => {
		const channel = new MessageChannel();
		channel.port1.onmessage = () => measured("next", from);
		channel.port2.postMessage(null);
	});
}

/** Choose which of the two screens is shown: the picture, or the calm one. */
function place() {
	hide({ work: !current, calm: current || !state });
	if (!current && state) calm();
}

function calm() {
	const { stage, step, counts } = state;
	const titles = {
		ask: nothingLeft ? "Nothing is left for you" : "The next picture comes",
		learn: "The model learns",
		done: "Finished",
		failed: "The run has stopped",
		classes: "Which classes are there?",
	};
	let { text } = state;
	if (stage === "ask" && !nothingLeft) text = "It is on its way.";
	else if (stage === "ask" && counts?.held_by_others) {
		text = `Other people work on ${count(counts.held_by_others, "picture")}. This page goes on by itself.`;
	}
	if (step) {
		Object.assign($.calmBar, { max: Math.max(1, step.total), value: step.done });
		const rest = step.seconds_left ? ` · about ${time(step.seconds_left)} more` : "";
		write({ calmName: `${step.name} · ${step.done} of ${step.total}${rest}` });
	}
	const lines = state.log.join("\n");
	write({ calmTitle: titles[stage], calmText: text });
	if ($.calmLines.textContent !== lines) write({ calmLines: lines });
	hide({
		calmStep: !step || stage !== "learn",
		calmReport: stage !== "done",
		calmAnswers: stage === "classes" || stage === "done" || !counts?.mine,
		names: stage !== "classes",
		calmLog: !lines || !["learn", "failed"].includes(stage),
	});
	if (stage === "failed" && !$.calmLog.dataset.seen) {
		$.calmLog.open = true;
		$.calmLog.dataset.seen = "yes";
	}
}

function toolsHere() {
	if (!current?.wants_map || current.votes) return ["hand"];
	const here = FOR_ASK[current.ask].filter((name) => state.rules.length || BY_HAND.includes(name));
	return [...here, "hand"];
}

function chooseTool(name) {
	if (!toolsHere().includes(name)) return;
	chosenTool = name;
	tools.choose(name);
	panel();
	const [title, , help] = TOOLS[name];
	say(`${title}: ${help}`);
}

function setErases(yes) {
	tools.erases = yes;
	tools.placeRing(tools.at);
	panel();
	say(yes ? "You erase now." : "You draw now.");
}

/** Show in the panel what is chosen and what can be done. */
function panel() {
	const work = current;
	if (!work) return;
	const { number, votes, reopened: earlier, proposed, untouched, suggested, label, mask } = work;
	const { hidden, origin } = work.state;
	const draws = work.wants_map && !votes;
	const accepts = draws && work.ask === "accept";
	const here = toolsHere();
	const points = tools.name === "points";
	const at = mine.findIndex((answer) => answer.key === work.key);

	classButtons();
	for (const button of $.classes.children) {
		const { name } = button.dataset;
		press(button, name === label);
		button.lastChild.textContent = votes?.[name] ? count(votes[name], "vote") : "";
	}
	for (const button of $.choice.children) {
		const { name } = button.dataset;
		button.hidden = !here.includes(name);
		press(button, name === tools.name);
	}
	press($.draws, !tools.erases);
	press($.erases, tools.erases);

	let model = "Your own map is shown.";
	if (!suggested) model = "The model has no map for this picture.";
	else if (proposed === null) model = "The model has no map for this class.";
	else if (label === null) model = "This is the model’s map. Its class is for you to choose.";
	else if (untouched) model = `This is the model’s map of “${proposed}”.`;
	else if (hidden) model = "The model’s map is hidden.";
	else if (origin === "model") model = "You corrected the model’s map.";
	if (accepts && proposed === null) model += " Only the class is asked.";
	let title = "What does it show?";
	if (votes) title = "Which class is right?";
	else if (work.given) title = "Is this class right?";
	let about = `This is your answer to picture ${number}. You can change it.`;
	if (votes) about = "People disagree on this picture. The class that you choose settles it.";
	else if (work.skipped) about = `You skipped picture ${number}: ${work.reason || "no reason was given"}`;
	else if (work.question) about = `There is a question about picture ${number}.`;
	write({
		pictureName: `Picture ${number}`,
		classTitle: title,
		modelText: model,
		hideText: hidden ? "Show" : "Hide",
		thresholdValue: `${work.percent} %`,
		drawText: TOOLS[tools.name][2],
		draws: points ? "Inside" : "Draw",
		erases: points ? "Outside" : "Erase",
		sizeValue: `${Math.round(2 * tools.radius)} px`,
		reopenedText: about,
		doneText: earlier ? "Save the change" : "Done",
	});
	$.map.ariaLabel = `Drawing area, picture ${number}`;
	$.threshold.value = work.percent;
	$.size.value = tools.radius;
	if (document.activeElement !== $.note) $.note.value = work.note;

	const rules = state.rules.filter((name) => name !== "box" || !points);
	if ($.rule.dataset.names !== rules.join()) {
		const before = $.rule.value;
		$.rule.replaceChildren(...rules.map((name) => new Option(RULES[name] ?? name, name)));
		$.rule.dataset.names = rules.join();
		if (rules.includes(before)) $.rule.value = before;
	}
	hide({
		tools: !draws,
		steps: accepts,
		add: !state.new_classes,
		modelPart: !draws || (!suggested && !accepts),
		thresholdPart: !untouched,
		accept: !untouched,
		refuse: !accepts || proposed === null,
		hide: accepts || proposed === null || !(untouched || hidden),
		drawPart: here.length < 2,
		mode: ["hand", "box"].includes(tools.name),
		sizePart: tools.name !== "brush",
		rulePart: !["box", "points"].includes(tools.name) || rules.length < 2,
		opacityPart: !draws,
		reopened: !earlier,
		earlier: votes || at === 0,
		later: votes || at < 0 || at === mine.length - 1,
		withdraw: votes || !work.answer,
		actions: votes,
		back: earlier,
	});
	$.undo.disabled = !mask.past.length;
	$.redo.disabled = !mask.future.length;
	$.back.disabled = !state.counts?.mine && !talk.answered.size;
	$.done.classList.toggle("ready", label !== null);
}

function began() {
	current.strokeSeconds ??= current.clock.seconds;
}

/** Draw the map as it is now, and send the draft a little later. */
function changed(all = false) {
	if (all || view.suggested !== current.untouched) {
		view.suggested = current.untouched;
		current.mask.changed();
		view.redraw();
	} else view.update();
	tools.sketch();
	panel();
	draftSoon();
}

function draftSoon() {
	clearTimeout(draftTimer);
	draftTimer = setTimeout(draftNow, PENDING);
}

function noDraft() {
	clearTimeout(draftTimer);
	draftTimer = 0;
}

function draftNow() {
	if (!draftTimer) return;
	noDraft();
	const work = inHand();
	if (work?.mask.step) draftSoon();
	else if (work) talk.put("draft", work.key, signed(work.saved()));
}

// Classes

function classButtons() {
	const names = state.classes;
	const all = JSON.stringify(names);
	if ($.classes.dataset.names === all) return;
	$.classes.dataset.names = all;
	hide({ search: names.length <= MANY });
	const button = (name, i) => {
		const key = i < MANY ? `${i + 1}` : "";
		const fields = {
			className: "class",
			title: key ? `${name} (${key})` : name,
			data: { name },
			onclick: () => chooseClass(name),
			ariaKeyShortcuts: key || null,
		};
		return make("button", fields, make("kbd", key), make("span", name), make("small", ""));
	};
	$.classes.replaceChildren(...names.map(button));
}

function chooseClass(name) {
	const work = current;
	if (!work || saving || name === undefined) return;
	if (work.votes) {
		work.label = name;
		// A decision is a class alone.
		const decision = { settles: true, sure: true, kind: null, runs: null };
		send(work, decision, `Picture ${work.number} is settled: ${name}`);
		return;
	}
	work.classSeconds ??= work.clock.seconds;
	const before = work.proposed;
	work.label = name;
	const again = work.wants_map && work.proposed !== before && !work.own;
	if (again) work.propose();
	say(`Class: ${name}`);
	changed(again);
}

const seenClasses = () => [...$.classes.children].filter((button) => !button.hidden);

function search() {
	const words = $.search.value.trim().toLowerCase();
	for (const button of $.classes.children) {
		button.hidden = !button.dataset.name.toLowerCase().includes(words);
	}
	hot = words ? 0 : -1;
	pointAt();
	const n = seenClasses().length;
	say(n ? `${count(n, "class is", "classes are")} found.` : "No class has this name.");
}

function pointAt() {
	const button = seenClasses()[hot];
	for (const other of $.classes.children) other.classList.toggle("hot", other === button);
	button?.scrollIntoView({ block: "nearest" });
	return button?.dataset.name ?? "";
}

function leaveSearch() {
	$.search.value = "";
	search();
	say("");
	focusPicture();
}

$.search.addEventListener("input", search);
$.search.addEventListener("keydown", (event) => {
	const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
	if (way) {
		hot = clamp(hot + way, 0, seenClasses().length - 1);
		say(pointAt());
	} else if (event.key === "Enter") {
		const button = seenClasses()[Math.max(hot, 0)];
		if (!button) return;
		leaveSearch();
		chooseClass(button.dataset.name);
	} else if (event.key === "Escape") leaveSearch();
	else return;
	event.preventDefault();
	event.stopPropagation();
});

// The model's map and the rules

function setThreshold(value) {
	if (!inHand()?.untouched) return;
	current.percent = clamp(value, 1, 99);
	current.propose();
	changed(true);
}

function toggleHidden() {
	const work = inHand();
	if (!work || work.suggestion === null || work.ask === "accept") return;
	tools.stop();
	if (work.state.hidden && !work.mask.any) {
		work.state = { ...work.state, hidden: false };
		work.propose();
		say("The model’s map is shown.");
	} else {
		work.change((mask) => mask.clear(), EMPTY);
		say("The model’s map is hidden. You start from nothing.");
	}
	changed(true);
}

async function askRule(box, points) {
	const work = current;
	const call = ++ruleCalls;
	say("The map is being made…");
	$.stage.classList.add("busy");
	const question = signed({ label: work.label, rule: $.rule.value || state.rules[0], box, points });
	const reply = await heard(talk.ask(`/api/rule/${encodeURIComponent(work.key)}`, question));
	if (call !== ruleCalls) return;
	$.stage.classList.remove("busy");
	if (!reply || work !== current || work.closed) return;
	work.fromRule(box ? "box" : "points", reply.runs, points, box);
	say(work.mask.any ? "Here is the map. You can go on, or correct it." : "The rule found nothing here.");
	changed(true);
}

// Answers

function finish(more) {
	const work = inHand();
	if (!work) return;
	if (work.label === null) {
		say("Choose a class first.");
		$.classPart.classList.remove("asked");
		void $.classPart.offsetWidth; // so that the animation begins again
		$.classPart.classList.add("asked");
		return;
	}
	tools.stop();
	send(work, more, `Picture ${work.number} is done.`);
}

function accept() {
	if (inHand()?.untouched) finish();
}

function refuse() {
	const work = inHand();
	if (work?.ask !== "accept" || work.suggestion === null) return;
	if (work.label !== null) work.change((mask) => mask.clear(), EMPTY);
	finish({ sure: true });
}

async function skip() {
	const work = inHand();
	if (!work) return;
	tools.stop();
	$.reason.value = work.reason;
	for (const button of $.reasons.children) press(button, false);
	if ((await dialog("askSkip")) !== "ok" || work !== current) return;
	const reason = $.reason.value.trim();
	const empty = { skipped: true, reason, label: null, kind: null, runs: null };
	send(work, empty, `Picture ${work.number} is skipped.`);
}

/** Send an answer and go on. For a map that the server may ask about the page waits until it is kept. */
function send(work, more, text) {
	const start = performance.now();
	noDraft();
	work.clock.stop();
	const saved = signed({ ...work.saved(), sure: false, settles: false, ...more });
	const asks = work.wants_map && work.ask !== "accept" && !saved.skipped && !saved.sure && work.mask.odd;
	// An empty map is sent as one, so that the server asks whether it is meant.
	if (asks) saved.runs ??= work.mask.runs;
	const item = talk.put("answer", work.key, saved);
	item.text = text;
	if (asks && !talk.isAway) {
		saving = item;
		say("The answer is being saved…");
	} else goOn(text, start);
}

/** Show the picture that comes next. */
function goOn(text = "", start = performance.now()) {
	saving = null;
	const next = aside ?? ahead.shift() ?? null;
	aside = null;
	show(next, next && start);
	say(text);
	refill();
}

/** Hear from the queue what became of an answer. */
function told(item, reply, error) {
	if (error) {
		if (item.what === "answer") notTaken(item, error);
		else if (item.what === "withdraw" || error.status === 410) refused(error);
		return;
	}
	if (item.what === "draft") return;
	if (reply.counts && state) {
		state.counts = reply.counts;
		heading();
		if (reply.counts.answered >= reply.counts.images) pollSoon(300);
	}
	if (saving === item) goOn(item.text);
	else {
		panel();
		refill();
	}
}

/** Ask back, or say why the server refused an answer. The picture is on the screen again. */
async function notTaken(item, error) {
	const { key, body: saved } = item;
	const here = saving === item && current?.key === key;
	saving = null;
	if (error.status === 410) {
		if (here) show(null);
		refused(error);
		return;
	}
	if (!here) await open(key, saved);
	if (current?.key !== key) return;
	current.clock.start();
	panel();
	if (error.status !== 409) {
		say(error.message);
		return;
	}
	const empty = error.reply.ask === "empty";
	write({ sureText: error.message, sureKeep: empty ? "Go on without a map" : "Keep it" });
	hide({ sureInvert: empty });
	$.sureKeep.classList.toggle("main", empty);
	const choice = await dialog("askSure");
	if (current?.key !== key) return;
	if (choice === "invert") current.change((mask) => mask.invert());
	if (choice === "invert" || choice === "keep") finish({ sure: true });
	else {
		say("Change the map, and press Done again.");
		changed();
	}
}

// Earlier answers

async function readMine() {
	await talk.drain();
	const reply = await heard(talk.ask(`/api/mine?${who()}`));
	if (reply) mine = reply.answers;
	return reply !== null;
}

/** Open a picture again. `saved` is an answer that the server did not take. */
async function open(key, saved = null, votes = null) {
	draftNow();
	const picture = await heard(talk.ask(`/api/open/${encodeURIComponent(key)}?${who()}`));
	if (!picture) return;
	const work = new Work(picture, saved ?? picture.draft ?? picture.answer);
	Object.assign(work, { reopened: true, votes, question: saved !== null });
	if (!(await loaded(work))) return;
	if (current && !current.reopened) aside = current;
	show(work);
	say("");
	if (saved) draftSoon();
}

async function back(by) {
	if (saving || !(await readMine())) return;
	const at = current?.reopened ? mine.findIndex((answer) => answer.key === current.key) : mine.length;
	const answer = at >= 0 ? mine[at + by] : null;
	if (answer) await open(answer.key);
	else say(by < 0 ? "There is no earlier answer." : "There is no later answer.");
}

function comeBack() {
	if (saving || !current?.reopened) return;
	draftNow();
	goOn();
}

function withdraw(key) {
	const text = "The answer is withdrawn. The picture comes again.";
	const here = current?.key === key && current.reopened;
	if (here) noDraft();
	talk.put("withdraw", key, signed());
	if (here) goOn(text);
	else say(text);
}

async function list(title, text, rows) {
	write({ listTitle: title, listText: text });
	const item = ({ number, detail, act, more = [] }) => {
		const onclick = () => {
			$.list.close();
			act();
		};
		const button = make("button", { onclick }, make("b", `Picture ${number}`), make("small", detail));
		return make("li", {}, button, ...more);
	};
	$.listItems.replaceChildren(...rows.map(item));
	await dialog("list");
}

async function listAnswers() {
	if (saving || state.query === null || !(await readMine())) return;
	const row = ({ key, number, label, skipped, kind }) => {
		const onclick = () => {
			withdraw(key);
			take.parentNode.remove();
			$.listTitle.focus();
		};
		const ariaLabel = `Withdraw the answer to picture ${number}`;
		const take = make("button", { className: "quiet", textContent: "Withdraw", ariaLabel, onclick });
		const detail = skipped ? "skipped" : [label, KINDS[kind]].filter(Boolean).join(" · ");
		return { number, detail, act: () => open(key), more: [take] };
	};
	const some = "Choose an answer to look at it or to change it.";
	await list("My answers", mine.length ? some : "You have not answered yet in this round.", mine.map(row));
}

async function listTies() {
	if (saving || !state.counts?.ties) return;
	const reply = await heard(talk.ask(`/api/ties?${who()}`));
	if (!reply) return;
	const row = ({ key, number, votes }) => {
		const detail = Object.entries(votes).map(([name, n]) => `${name}: ${n}`).join(" · ");
		return { number, detail, act: () => open(key, null, votes) };
	};
	const text = "Look at a picture and choose its class. Your choice settles it.";
	await list("People disagree", text, reply.ties.map(row));
}

// Pictures to come

/** Decode a picture. It is tried again while the server is away. */
async function loaded(work) {
	while (!work.closed && !(await work.load(view.room))) {
		talk.lost(true);
		await wait();
	}
	return !work.closed;
}

function refill() {
	if (state?.stage !== "ask" || !person) return;
	if (filling) {
		filling.again = true;
		return;
	}
	const turn = (filling = { again: false });
	heard(takeMore()).finally(() => {
		filling = null;
		if (turn.again) refill();
	});
}

async function takeMore() {
	await talk.drain();
	const { query } = state;
	const { pictures } = await talk.ask("/api/take", signed({ count: 2, held: heldKeys() }));
	for (const picture of pictures) {
		if (state.query !== query) return;
		const here = held().some((work) => work.key === picture.key);
		if (here || talk.answered.has(picture.key) || ahead.length >= 2) continue;
		const work = new Work(picture, picture.draft ?? picture.answer);
		if (!(await loaded(work))) return;
		if (state.query !== query || talk.answered.has(picture.key)) {
			work.close();
			continue;
		}
		ahead.push(work);
		nothingLeft = false;
		if (!current) show(ahead.shift());
	}
	if (!current && !ahead.length) {
		nothingLeft = true;
		place();
		pollSoon(2000);
	}
}

function drop() {
	current?.clock.stop();
	noDraft();
	for (const work of held()) work.close();
	current = aside = saving = null;
	ahead = [];
	nothingLeft = false;
	view.show([], null);
	tools.stop();
}

// The state of the run

async function poll() {
	clearTimeout(polling);
	const next = await heard(talk.ask(`/api/state?${who()}`));
	if (!next) {
		pollSoon(5000);
		return;
	}
	const before = state;
	state = next;
	if (talk.run === null) await talk.recall(next.run);
	if (before && before.query !== next.query) {
		drop();
		say(next.stage === "ask" ? "New pictures are asked for." : "");
	} else if (before?.stage === "ask" && next.stage !== "ask" && current && !current.reopened) drop();
	heading();
	if (current) panel();
	else {
		place();
		refill();
	}
	pollSoon(["learn", "classes"].includes(next.stage) ? 2000 : nothingLeft ? 3000 : 15000);
}

function pollSoon(ms) {
	clearTimeout(polling);
	polling = setTimeout(poll, ms);
}

// Dialogs

/** Show a dialog. Resolve with the value of the button that closed it. */
function dialog(name) {
	if (opened()) return Promise.resolve("cancel");
	const box = $[name];
	const focused = document.activeElement;
	box.returnValue = "cancel";
	box.ariaLabel = box.querySelector("h2").textContent;
	box.showModal();
	return new Promise((done) => {
		box.onclose = () => {
			if (focused?.isConnected && focused !== document.body) focused.focus({ preventScroll: true });
			else focusPicture();
			done(box.returnValue);
		};
	});
}

async function askName() {
	const first = !person;
	$.person.value = person ?? "";
	hide({ nameCancel: first });
	do {
		if ((await dialog("askName")) !== "ok" && !first) return;
	} while (!$.person.value.trim());
	const name = $.person.value.trim();
	if (name === person) return;
	draftNow();
	release();
	person = name;
	store.set("person", name);
	drop();
	if (!first) poll();
}

async function addNames(names) {
	state.classes = (await talk.ask("/api/classes", signed({ names }))).classes;
}

async function addClass() {
	if (!state.new_classes || !inHand()) return;
	$.newClass.value = "";
	const name = (await dialog("askClass")) === "ok" && $.newClass.value.trim();
	if (!name) return;
	await heard(addNames([name]));
	panel();
	if (state.classes.includes(name)) chooseClass(name);
}

$.names.addEventListener("submit", async (event) => {
	event.preventDefault();
	const names = new Set($.namesText.value.split("\n").map((name) => name.trim()).filter(Boolean));
	try {
		if (names.size < 2) throw new Error("At least two different names are needed.");
		await addNames([...names]);
		poll();
	} catch (error) {
		write({ calmText: error.message });
	}
});

async function guide() {
	if (state.instructions && !$.instructions.childElementCount) {
		try {
			const text = await (await fetch("/instructions")).text();
			const read = new DOMParser().parseFromString(text, "text/html");
			$.instructions.replaceChildren(...read.body.childNodes);
		} catch {
			// Without the server only the keys are shown.
		}
	}
	await dialog("guide");
}

REASONS.forEach((text, i) => {
	const onclick = () => {
		$.reason.value = text;
		for (const other of $.reasons.children) press(other, other === button);
		$.skipNow.focus();
	};
	const button = make("button", { onclick }, make("kbd", i + 1), make("span", text));
	$.reasons.append(button);
});
$.askSkip.addEventListener("keydown", (event) => {
	const typed = $.reason.value && document.activeElement === $.reason;
	const button = $.reasons.children[Number(event.key) - 1];
	if (!button || typed || event.ctrlKey || event.altKey || event.metaKey) return;
	event.preventDefault();
	button.click();
});

// Controls

function undo(redo) {
	if (!inHand() || (!redo && tools.unpin())) return;
	tools.stop();
	const moved = current.undo(redo);
	if (moved) changed(true);
	if (redo) say(moved ? "Done again." : "There is nothing to do again.");
	else say(moved ? "Undone." : "There is nothing to undo.");
}

function whole(draw, state) {
	if (!inHand() || toolsHere().length < 2) return;
	tools.stop();
	began();
	current.change(draw, state);
	changed(true);
}

function setSize(radius) {
	tools.size(radius);
	store.set("size", tools.radius);
	panel();
}

function setLook(name, value) {
	$[name].value = value;
	store.set(name, $[name].value);
	write({ [`${name}Value`]: `${$[name].value} %` });
	view.opacity = $.opacity.value / 100;
	$.picture.style.filter = `brightness(${$.brightness.value}%) contrast(${$.contrast.value}%)`;
	if (name === "opacity") view.redraw();
}

/** Choose between light and dark, or do as the system does. Return the name of the other one. */
function theme(name) {
	const { style } = document.documentElement;
	if (name) style.colorScheme = name;
	const other = (style.colorScheme || (DARK.matches ? "dark" : "light")) === "dark" ? "light" : "dark";
	write({ theme: other === "dark" ? "Dark" : "Light" });
	view.redraw();
	return other;
}

function changeTheme() {
	const other = theme();
	store.set("theme", other);
	theme(other);
}

function jump(name) {
	if (!$[name].checkVisibility()) return;
	$[name].focus();
	$[name].select?.();
}

function plain() {
	for (const name in LOOKS) setLook(name, LOOKS[name]);
}

function look() {
	const { parentNode: box } = $.look;
	box.open = !box.open;
	if (box.open) jump($.opacityPart.hidden ? "brightness" : "opacity");
}

const toolControls = Object.entries(TOOLS).map(([name, [title, key, help]]) => [
	`tool-${name}`,
	[key, `${title}: ${help}`, () => chooseTool(name)],
]);
// Each control: its key, its title, and what it does. The keys, the titles and the guide are made of this.
const CONTROLS = {
	done: ["Enter", "Done: save and go on, or close the polygon", () => tools.close() || finish()],
	accept: ["A", "Accept the model’s map as it is, and go on", accept],
	refuse: ["N", "The map is wrong: answer without a map", refuse],
	hide: ["X", "Hide the model’s map, or show it", toggleHidden],
	...Object.fromEntries(toolControls),
	draws: ["E", "Draw or erase: the right button does the other", () => setErases(false)],
	erases: ["E", "", () => setErases(true)],
	undo: ["Ctrl+Z", "Undo", () => undo(false)],
	redo: ["Ctrl+Y", "Redo (also Ctrl+Shift+Z)", () => undo(true)],
	clear: ["C", "Clear the map", () => whole((mask) => mask.clear(), EMPTY)],
	invert: ["I", "Invert the map", () => whole((mask) => mask.invert())],
	larger: ["+", "Zoom in (also the wheel)", () => view.zoom(1.25)],
	smaller: ["-", "Zoom out", () => view.zoom(1 / 1.25)],
	fit: ["0", "Show the whole picture", () => view.fit()],
	search: ["/", "Find a class: the arrow keys and Enter choose it", () => jump("search")],
	add: ["K", "Add a class", addClass],
	note: ["M", "Write a note on this picture", () => jump("note")],
	rule: ["Y", "Choose the rule that makes the map", () => jump("rule")],
	skip: ["S", "Skip this picture", skip],
	back: ["Backspace", "Go back to the answer before", () => tools.unpin() || back(-1)],
	earlier: ["Backspace", "", () => back(-1)],
	later: ["Shift+Backspace", "Go on to the answer after", () => back(1)],
	withdraw: ["W", "Withdraw this answer", () => $.withdraw.checkVisibility() && withdraw(current.key)],
	return: [
		"Escape",
		"Stop, or return to the picture in hand: changes are kept as a draft",
		() => tools.stop() || comeBack(),
	],
	answers: ["L", "My answers", listAnswers],
	calmAnswers: ["L", "", listAnswers],
	ties: ["U", "Pictures on which people disagree", listTies],
	look: ["V", "How it looks: map, brightness, contrast", look],
	plain: ["G", "Picture and map as they were", plain],
	who: ["J", "Change the name", askName],
	theme: ["D", "Light or dark", changeTheme],
	help: ["?", "Instructions and keys", guide],
};
const add = (step) => (value, way) => value + step * way;
// Each slider: the keys for less and more, its title, its label, its range, what it sets, and by how much.
const SLIDERS = {
	threshold: ["< >", "Threshold of the model’s map", "Sure at least", [1, 99], setThreshold, add(2)],
	size: ["[ ]", "Size of the brush", "Brush size", [1, 200], setSize, (value, way) => value * 1.2 ** way],
	opacity: [", .", "Opacity of the map", "Map", [0, 100], (value) => setLook("opacity", value), add(5)],
	brightness: ["( )", "Brightness", "Brightness", [20, 300], (value) => setLook("brightness", value), add(10)],
	contrast: ["{ }", "Contrast", "Contrast", [20, 300], (value) => setLook("contrast", value), add(10)],
};
const PRESSES = { "=": () => view.zoom(1.25), _: () => view.zoom(1 / 1.25) };
const WITHOUT_PICTURE = ["l", "j", "d", "u", "?"];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function explain(keys, text) {
	$.keys.append(make("dt", keys), make("dd", text));
}

/** Tell the keys of a control in its title, and to a screen reader. */
function announce(control, keys, text) {
	control.title = `${text} (${keys})`;
	control.setAttribute("aria-keyshortcuts", keys.replace("Ctrl", "Control"));
}

function iconButton(box, id, name, title, icon) {
	const button = make("button", { id, className: "tool", data: { name } });
	button.innerHTML = `<svg viewBox="0 0 24 24"><path d="${icon}"/></svg>`;
	button.append(title);
	box.append(button);
}

for (const [name, [title, , , icon]] of Object.entries(TOOLS)) {
	iconButton($.choice, `tool-${name}`, name, title, icon);
}
for (const name in STEP_ICONS) {
	iconButton($.steps, name, name, name[0].toUpperCase() + name.slice(1), STEP_ICONS[name]);
}
explain("1 to 9", "Choose a class");
let title = "";
for (const [id, [keys, text, act]] of Object.entries(CONTROLS)) {
	if (text) explain(keys, (title = text));
	announce($[id], keys, title);
	PRESSES[keys.length === 1 ? keys.toLowerCase() : keys] ??= act;
	if ($[id].localName === "button") $[id].addEventListener("click", act);
}
PRESSES.e = () => setErases(!tools.erases);
for (const [id, [keys, text, label, [min, max], set, step]] of Object.entries(SLIDERS)) {
	const slider = make("input", { id, type: "range", min, max, oninput: () => set(Number(slider.value)) });
	const value = make("output", { id: `${id}-value` });
	$[`${id}Part`].append(make("label", { htmlFor: id, textContent: label }), value, slider);
	explain(keys, text);
	announce(slider, keys, text);
	keys.split(" ").forEach((key, i) => {
		PRESSES[key] = () => set(step(id === "size" ? tools.radius : Number(slider.value), i ? 1 : -1));
	});
}
explain("Arrows", "On the picture: move the cross-hair, ten times as far with Shift");
explain("Space", "On the picture: press the cross-hair and lift it. With the mouse: move the picture");

// A click leaves the focus on the picture: there Enter means Done.
document.addEventListener("mousedown", (event) => {
	if (event.target.closest("button") && !event.target.closest("dialog, form")) event.preventDefault();
});

$.note.addEventListener("input", () => {
	if (!current) return;
	current.note = $.note.value;
	draftSoon();
});
$.note.addEventListener("keydown", (event) => {
	if (event.key !== "Enter" || event.shiftKey) return;
	event.preventDefault();
	focusPicture();
});

/** Return what a key does now, or nothing. */
function meant(event) {
	const { target, key, shiftKey } = event;
	const third = event.getModifierState("AltGraph");
	const name = key.length === 1 ? key.toLowerCase() : key;
	if ((event.ctrlKey || event.metaKey) && !third) {
		if (!current) return null;
		return { z: () => undo(shiftKey), y: () => undo(true) }[name];
	}
	if (event.altKey && !third) return null;
	if (["Enter", " "].includes(key) && target.closest("button, summary, a")) return null;
	if (!current) return WITHOUT_PICTURE.includes(name) ? PRESSES[name] : null;
	if (ARROWS[key]) {
		return [view.layer, document.body].includes(target) ? () => tools.step(...ARROWS[key], shiftKey) : null;
	}
	if (key === " ") return () => event.repeat || tools.tap() || holdSpace(true);
	if (/^[1-9]$/.test(key)) return () => chooseClass(state.classes[key - 1]);
	return PRESSES[key === "Backspace" && shiftKey ? "Shift+Backspace" : name];
}

document.addEventListener("keydown", (event) => {
	if (event.defaultPrevented || !state || opened()) return;
	if (event.target.matches("textarea, select, input:not([type=range])")) {
		if (event.key === "Escape") focusPicture();
		return;
	}
	const act = meant(event);
	if (!act) return;
	event.preventDefault();
	act();
});

function holdSpace(yes) {
	tools.space = yes;
	$.stage.classList.toggle("space", yes);
	tools.placeRing(tools.at);
}

document.addEventListener("keyup", (event) => {
	if (event.key === " ") holdSpace(false);
});

// Time and leaving

for (const kind of ["pointermove", "pointerdown", "keydown", "wheel"]) {
	const alive = () => {
		lastActive = performance.now();
		current?.clock.tick();
	};
	addEventListener(kind, alive, { capture: true, passive: true });
}

document.addEventListener("visibilitychange", () => {
	current?.clock.show(document.hidden);
	if (document.hidden) draftNow();
	else if (state) pollSoon(100);
});

function release() {
	const keys = heldKeys();
	if (keys.length) post("/api/release", signed({ keys })).catch(() => {});
}

addEventListener("pagehide", () => {
	draftNow();
	release();
});
addEventListener("pageshow", (event) => {
	if (event.persisted) location.reload();
});
// What is in hand is renewed while somebody works.
setInterval(() => {
	if (current && performance.now() - lastActive < 60000) refill();
}, 60000);

view.moved = () => tools.sketch();

/** What tests and curious people may look at. */
window.page = {
	times,
	view,
	tools,
	talk,
	get work() {
		return current;
	},
	get ahead() {
		return ahead;
	},
	get state() {
		return state;
	},
	get runs() {
		return current?.mask?.runs ?? null;
	},
};

async function start() {
	theme(store.get("theme"));
	DARK.addEventListener("change", () => theme());
	tools.size(Number(store.get("size")) || 12);
	for (const name in LOOKS) setLook(name, store.get(name) ?? LOOKS[name]);
	if (!person) await askName();
	await poll();
	if (state?.instructions && store.get("read") !== state.run) {
		store.set("read", state.run);
		guide();
	}
}

start();
