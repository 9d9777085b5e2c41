// The timeline of one prompt phase as SVG: a lane per rank, computing and waiting in its bar, sends and receives below.
import { el, svg } from "/page/dom.js";
import { count, milliseconds } from "/page/format.js";

const KINDS = { compute: [0, 16], wait: [0, 16], send: [18, 4], receive: [24, 4] }; // offset and height in a lane, px
const LABEL = 16; // height of a lane's label, px
const LANE = LABEL + 28 + 10;
const AXIS = 20;
const MARGIN = 6; // px on both sides
const GAP = 0.25; // px; events closer than this are drawn as one

/** [{rank, events: [...]}] by rank; events that cannot be drawn are left out. */
function lanesOf(timeline) {
  const lanes = new Map();
  for (const event of timeline) {
    if (!(event.kind in KINDS) || !(event.end_ms >= event.begin_ms)) continue;
    if (!lanes.has(event.rank)) lanes.set(event.rank, { rank: event.rank, events: [] });
    lanes.get(event.rank).events.push(event);
  }
  for (const lane of lanes.values()) lane.events.sort((a, b) => a.begin_ms - b.begin_ms);
  return [...lanes.values()].sort((a, b) => a.rank - b.rank);
}

/** Milliseconds in which at least one of a lane's events of `kind` was going on. */
function busy(lane, kind) {
  let total = 0;
  let until = -Infinity;
  for (const event of lane.events) {
    if (event.kind !== kind || event.end_ms <= until) continue;
    total += event.end_ms - Math.max(event.begin_ms, until);
    until = event.end_ms;
  }
  return total;
}

/** Events of one kind that touch on the screen, as [begin_ms, end_ms] with how many they are. */
function stretches(lane, kind, gap_ms) {
  const merged = [];
  for (const event of lane.events) {
    if (event.kind !== kind) continue;
    const last = merged.at(-1);
    if (last && event.begin_ms - last.end_ms <= gap_ms) {
      last.end_ms = Math.max(last.end_ms, event.end_ms);
      last.events += 1;
    } else {
      merged.push({ begin_ms: event.begin_ms, end_ms: event.end_ms, events: 1 });
    }
  }
  return merged;
}

function ticks(end_ms, most) {
  const rough = end_ms / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const values = [];
  for (let i = 0; i * step <= end_ms * 1.0001; i += 1) values.push(i * step);
  return values;
}

/** Whether the prompt was read in several rounds: the cuts are those of the first. */
export const hasRounds = (recent) => recent.rounds > 1;

/** The tokens of a rank's chunk; 0: it had none. */
function chunkTokens(recent, rank) {
  const index = recent.members.indexOf(rank);
  return index >= 0 && index + 1 < recent.cuts.length ? recent.cuts[index + 1] - recent.cuts[index] : 0;
}

/** "2,500 tokens from 0": the chunk of the lane's rank. */
function chunkOf(recent, rank) {
  const tokens = chunkTokens(recent, rank);
  if (tokens === 0) return "";
  const where = hasRounds(recent) ? `in the first of ${count(recent.rounds)} rounds` : `from ${count(recent.cuts[recent.members.indexOf(rank)])}`;
  return `${count(tokens)} tokens ${where}`;
}

function drawLane(lane, recent, y, scale) {
  const chunk = chunkOf(recent, lane.rank);
  const group = svg("g", {}, svg("text", { x: MARGIN, y: y + 11 }, `rank ${lane.rank}${chunk ? ` · ${chunk}` : ""}`));
  for (const [kind, [offset, height]] of Object.entries(KINDS)) {
    for (const part of stretches(lane, kind, GAP / scale)) {
      const width = Math.max(kind === "compute" || kind === "wait" ? 0.4 : 1, (part.end_ms - part.begin_ms) * scale);
      const times = part.events > 1 ? `, ${part.events} times` : "";
      const says = `rank ${lane.rank}: ${kind}${times}, ${milliseconds(part.end_ms - part.begin_ms)} from ${milliseconds(part.begin_ms)}`;
      group.append(svg("rect", { class: kind, x: MARGIN + part.begin_ms * scale, y: y + LABEL + offset, width, height }, svg("title", {}, says)));
    }
  }
  return group;
}

/** The picture, `width` pixels wide; null where nothing was recorded. `recent` is an entry of the state's "recent". */
export function timelineSvg(recent, width) {
  const lanes = lanesOf(recent.timeline ?? []);
  const end_ms = Math.max(0, ...lanes.flatMap((lane) => lane.events.map((event) => event.end_ms)));
  if (!(end_ms > 0)) return null;
  const bottom = lanes.length * LANE;
  const height = bottom + AXIS;
  const scale = (width - 2 * MARGIN) / end_ms;
  const summary = `Timeline of ${milliseconds(end_ms)} on ${lanes.length} ranks`;
  const picture = svg("svg", { class: "timeline", role: "img", "aria-label": summary, width, height, viewBox: `0 0 ${width} ${height}` });
  for (const tick of ticks(end_ms, Math.max(2, Math.floor(width / 75)))) {
    const x = MARGIN + tick * scale;
    const anchor = tick === 0 ? "start" : x > width - 30 ? "end" : "middle";
    picture.append(svg("line", { class: "grid", x1: x, x2: x, y1: 0, y2: bottom }));
    picture.append(svg("text", { class: "tick", x, y: bottom + 14, "text-anchor": anchor }, tick === 0 ? "0 ms" : tick >= 1000 ? count(tick) : String(Number(tick.toPrecision(6)))));
  }
  lanes.forEach((lane, i) => picture.append(drawLane(lane, recent, i * LANE, scale)));
  return picture;
}

/** The same in numbers, for whoever does not see the picture or wants to know exactly. */
export function timelineTable(recent) {
  const kinds = Object.keys(KINDS);
  const rows = lanesOf(recent.timeline ?? []).map((lane) => {
    const tokens = count(chunkTokens(recent, lane.rank));
    return el("tr", {}, el("th", { scope: "row" }, `rank ${lane.rank}`), el("td", {}, tokens), ...kinds.map((kind) => el("td", {}, busy(lane, kind).toFixed(1))));
  });
  const head = ["", hasRounds(recent) ? "tokens, round 1" : "tokens", ...kinds.map((kind) => `${kind}, ms`)].map((title) => el("th", { scope: "col" }, title));
  return el("table", {}, el("thead", {}, el("tr", {}, ...head)), el("tbody", {}, ...rows));
}
