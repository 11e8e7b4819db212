/** A worker that fetches and decodes pictures, so that the page never waits for it. */

import { enlarged, fromRuns } from "./mask.js";

/** Make the picture in the sizes in which it is drawn: its own, halves of it, and the size that fills the page. */
async function levels(blob, room) {
  const full = await createImageBitmap(blob);
  const fit = Math.min(room[0] / full.width, room[1] / full.height);
  const scales = [];
  for (let scale = 0.5; scale > fit * 1.2; scale /= 2) scales.push(scale);
  if (fit < 0.95) scales.push(fit);
  const made = [{ bitmap: full, scale: 1 }];
  for (const scale of scales) {
    const bitmap = await createImageBitmap(made[made.length - 1].bitmap, {
      resizeWidth: Math.max(1, Math.round(full.width * scale)),
      resizeHeight: Math.max(1, Math.round(full.height * scale)),
      resizeQuality: "medium",
    });
    made.push({ bitmap, scale });
  }
  return made;
}

onmessage = async ({ data: { id, key, width, height, room, runs, grid } }) => {
  let response;
  let blob;
  try {
    response = await fetch(`/picture/${encodeURIComponent(key)}`);
    blob = await response.blob();
  } catch {
    postMessage({ id, away: true });
    return;
  }
  if (response.status >= 500) return postMessage({ id, away: true });
  let made = [];
  let error = "";
  try {
    if (!response.ok) throw new Error(response.status);
    made = await levels(blob, room);
  } catch {
    error = "This picture cannot be shown. Skip it, and say so.";
  }
  let mask = null;
  if (runs) mask = fromRuns(runs, width, height);
  else if (grid) mask = enlarged(grid.values, grid.width, grid.height, width, height, grid.percent);
  const moved = made.map((level) => level.bitmap);
  if (mask) moved.push(mask.buffer);
  postMessage({ id, levels: made, mask, error }, moved);
};
