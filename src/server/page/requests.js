// The requests that wait and run, and the prompts that were read, with their timelines.
import { byId, el, setText, syncList } from "/page/dom.js";
import { count, milliseconds, percent, plural } from "/page/format.js";
import { hasRounds, timelineSvg, timelineTable } from "/page/timeline.js";

const STATES = { waiting: "waits", reading: "reading", answering: "answering" };
const NARROWEST = 240; // px of a timeline
const PADDING = 12; // px on each side of it

export function drawTiles(state) {
  const totals = state.totals;
  const cached = totals.prompt_tokens > 0 ? percent(totals.cached_tokens / totals.prompt_tokens) : "–";
  const tiles = [
    ["running", count(state.running)],
    ["waiting", count(state.waiting)],
    ["requests", count(totals.requests)],
    ["prompt tokens", count(totals.prompt_tokens)],
    ["of them cached", cached],
    ["new tokens", count(totals.new_tokens)],
  ];
  const make = ([name]) => el("div", {}, el("dt", {}, name), el("dd", {}));
  syncList(byId("tiles"), tiles, ([name]) => name, make, (element, [, value]) => setText(element.lastElementChild, value));
}

function makeRequest() {
  return el("li", {},
    el("div", { class: "request-head" }, el("span", { class: "doing" }), el("span", { class: "id" }), el("span", { class: "space" }), el("span", { class: "elapsed" })),
    el("progress", { max: "1" }), el("p", { class: "faint" }));
}

function updateRequest(element, request) {
  const doing = element.querySelector(".doing");
  doing.dataset.doing = request.state;
  setText(doing, STATES[request.state] ?? request.state);
  setText(element.querySelector(".id"), request.id);
  setText(element.querySelector(".elapsed"), milliseconds(request.elapsed_ms));
  const bar = element.querySelector("progress");
  bar.value = request.prompt_tokens > 0 ? request.prompt_done / request.prompt_tokens : 0;
  bar.setAttribute("aria-label", `Prompt of ${request.id}`);
  const facts = [`${count(request.prompt_done)} of ${plural(request.prompt_tokens, "prompt token")}`];
  if (request.cached_tokens > 0) facts.push(`${count(request.cached_tokens)} cached`);
  if (request.state === "answering") facts.push(plural(request.new_tokens, "new token"));
  else if (request.predicted_left_ms > 0) facts.push(`about ${milliseconds(request.predicted_left_ms)} left`);
  setText(element.lastElementChild, facts.join(" · "));
}

export function drawRequests(requests) {
  byId("no-requests").hidden = requests.length > 0;
  syncList(byId("requests"), requests, (request) => request.id, makeRequest, updateRequest);
}

/** "12 % sooner than predicted (80 ms)", "3.4 times what was predicted (80 ms)". */
function against(predicted_ms, measured_ms) {
  if (!(predicted_ms > 0) || !(measured_ms > 0)) return "";
  const off = measured_ms / predicted_ms - 1;
  if (off > 1) return `${(off + 1).toFixed(1)} times what was predicted (${milliseconds(predicted_ms)})`;
  const how = Math.abs(off) < 0.005 ? "as predicted" : `${percent(Math.abs(off))} ${off > 0 ? "later" : "sooner"} than predicted`;
  return `${how} (${milliseconds(predicted_ms)})`;
}

function factsOf(recent) {
  const facts = [
    ["first token", milliseconds(recent.ttft_ms), against(recent.predicted_ttft_ms, recent.ttft_ms)],
    ["prompt", plural(recent.prompt_tokens, "token"), recent.cached_tokens > 0 ? `${count(recent.cached_tokens)} from the cache` : ""],
    ["cuts", recent.cuts.map(count).join(" | "), hasRounds(recent) ? `in the first of ${count(recent.rounds)} rounds` : plural(recent.members.length, "rank")],
    ["waited", milliseconds(recent.queued_ms), "in the queue"],
    ["answer", plural(recent.new_tokens, "token"), [recent.tpot_ms > 0 ? `${milliseconds(recent.tpot_ms)} each` : "", recent.finish].filter(Boolean).join(", ")],
  ];
  const rows = facts.filter(([name, value]) => value !== "" && !(name === "waited" && recent.queued_ms < 1));
  return el("dl", { class: "facts" }, ...rows.map(([name, value, note]) => el("div", {}, el("dt", {}, name), el("dd", {}, value, note ? el("span", { class: "faint" }, ` ${note}`) : null))));
}

/** Draws what is inside an entry when it is opened, and again when its width has changed. */
function drawInside(details, recent) {
  const holder = details.querySelector(".inside");
  const width = Math.max(NARROWEST, Math.floor(holder.clientWidth) - 2 * PADDING);
  if (!details.open || holder.dataset.width === String(width)) return;
  holder.dataset.width = width;
  const picture = timelineSvg(recent, width);
  const numbers = picture && el("details", { class: "numbers" }, el("summary", {}, "In numbers"), timelineTable(recent));
  holder.replaceChildren(picture ?? el("p", { class: "faint" }, "No timeline was recorded."), factsOf(recent), ...(numbers ? [numbers] : []));
}

function makeRecent(recent) {
  const summary = el("summary", {}, el("span", { class: "ttft" }, milliseconds(recent.ttft_ms)),
    el("span", {}, plural(recent.prompt_tokens, "token")), el("span", { class: "faint" }, recent.members.length > 1 ? `${recent.members.length} ranks` : `rank ${recent.members[0] ?? 0}`));
  const details = el("details", {}, summary, el("div", { class: "inside" }));
  details.addEventListener("toggle", () => drawInside(details, recent));
  return el("li", {}, details);
}

export function drawRecent(recent) {
  const list = byId("recent");
  byId("no-recent").hidden = recent.length > 0;
  byId("timeline-legend").hidden = recent.length === 0;
  const newest = list.firstElementChild;
  syncList(list, recent, (entry) => entry.id, makeRecent, (element, entry) => drawInside(element.firstElementChild, entry));
  const first = list.firstElementChild;
  if (!first || first === newest) return;
  // What opened by itself makes room for the newest; what a person opened stays.
  if (newest?.dataset.opened === "alone") newest.firstElementChild.open = false;
  first.dataset.opened = "alone";
  first.firstElementChild.open = true;
}
