// What the ranks do now: GET /runahead/state again and again, drawn beside the conversation.
import { request } from "/page/api.js";
import { setTemplate } from "/page/chat.js";
import { byId, setText } from "/page/dom.js";
import { drawRanks } from "/page/ranks.js";
import { drawRecent, drawRequests, drawTiles } from "/page/requests.js";
import { openSettings, settings } from "/page/settings.js";

const BUSY_MS = 300;
const IDLE_MS = 1000;
const LONGEST_MS = 15000;
const ANSWER_WITHIN_MS = 10000;
const RECENT = 20;

let timer = 0;
let failures = 0;
let polling = false;
let recent = [];
let uptime_s = 0;

function showHealth(health, text) {
  byId("health").dataset.health = health;
  setText(byId("health-text"), text);
}

function alertAbout(text) {
  const alert = byId("monitor-alert");
  setText(alert, text);
  alert.hidden = text === "";
}

/** The prompts read before and those that `state` adds to them, newest first; none of before where the server is new. */
function withNew(state) {
  if (state.uptime_s < uptime_s) recent = [];
  uptime_s = state.uptime_s;
  const fresh = state.recent.filter((entry) => !recent.some((known) => known.id === entry.id));
  recent = [...fresh, ...recent].slice(0, RECENT);
  return recent;
}

function draw(state) {
  if (state.healthy) showHealth("good", state.running + state.waiting > 0 ? "working" : "ready");
  else showHealth("bad", "failed");
  alertAbout(state.healthy ? "" : `The engine has failed: ${state.failure || "no reason is known"}`);
  setText(byId("model"), state.model);
  document.title = `${state.model} · Runahead`;
  if (typeof state.chat === "boolean") setTemplate(state.chat);
  drawTiles(state);
  drawRanks(state.ranks);
  drawRequests(state.requests);
  drawRecent(withNew(state));
}

function showError(error, next_ms) {
  if (error.status === 401 || error.status === 403) {
    showHealth("bad", "key wanted");
    alertAbout("The server wants an API key: enter it in the settings.");
    return;
  }
  showHealth("bad", "not reachable");
  const what = error.status === 0 ? "The server does not answer." : error.message;
  alertAbout(`${what} What is shown is the last that was known; next try in ${Math.round(next_ms / 1000)} s.`);
}

async function poll() {
  clearTimeout(timer);
  if (polling || document.hidden) return;
  polling = true;
  let next_ms = IDLE_MS;
  try {
    const known = recent.length > 0 ? `?known=${encodeURIComponent(recent[0].id)}` : "";
    const answer = await request(`/runahead/state${known}`, { key: settings().key, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
    const state = await answer.json();
    failures = 0;
    draw(state);
    if (state.running + state.waiting > 0) next_ms = BUSY_MS;
  } catch (error) {
    failures += 1;
    next_ms = Math.min(LONGEST_MS, 1000 * 2 ** (failures - 1));
    showError(error, next_ms);
  }
  polling = false;
  timer = setTimeout(poll, next_ms);
}

export function startMonitor() {
  document.addEventListener("visibilitychange", poll);
  addEventListener("online", poll);
  addEventListener("asked", () => setTimeout(poll, 50));
  byId("health").addEventListener("click", () => byId("health-text").textContent === "key wanted" && openSettings("key"));
  poll();
}

/** Looks now, for instance with a new key. */
export const pollNow = poll;
