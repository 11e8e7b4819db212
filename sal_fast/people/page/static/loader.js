/** A worker that fetches and decodes pictures, so that the page never waits for it. */

import { enlarged, fromRuns } from "./mask.js";

/** Make the picture in the sizes that are drawn: its own, halves of it, and the one that fills the page. */
async function levels(blob, [width, height]) {
	const full = await createImageBitmap(blob);
	const fit = Math.min(width / full.width, height / full.height);
	const scales = [];
	for (let scale = 0.5; scale > fit * 1.2; scale /= 2) scales.push(scale);
	if (fit < 0.95) scales.push(fit);
	const made = [{ bitmap: full, scale: 1 }];
	for (const scale of scales) {
		const bitmap = await createImageBitmap(made.at(-1).bitmap, {
			resizeWidth: Math.max(1, Math.round(full.width * scale)),
			resizeHeight: Math.max(1, Math.round(full.height * scale)),
			resizeQuality: "medium",
		});
		made.push({ bitmap, scale });
	}
	return made;
}

onmessage = async ({ data: { key, width, height, room, runs, grid, percent }, ports: [port] }) => {
	let response;
	let blob;
	try {
		response = await fetch(`/picture/${encodeURIComponent(key)}`);
		blob = await response.blob();
		if (response.status >= 500) throw new Error(response.status);
	} catch {
		port.postMessage({ away: true });
		return;
	}
	const reply = { levels: [], mask: null };
	try {
		if (!response.ok) throw new Error(response.status);
		reply.levels = await levels(blob, room);
	} catch {
		reply.error = "This picture cannot be shown. Skip it, and say so.";
	}
	if (runs) reply.mask = fromRuns(runs, new Uint8Array(width * height));
	else if (grid) reply.mask = enlarged(grid, width, height, percent);
	const moved = reply.levels.map((level) => level.bitmap);
	if (reply.mask) moved.push(reply.mask.buffer);
	port.postMessage(reply, moved);
};
