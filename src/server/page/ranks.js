// Each rank: its device, what it does, how busy it was, and the pages of its KV-cache.
import { byId, el, setText, svg, syncList } from "/page/dom.js";
import { bytes, count, percent, plural } from "/page/format.js";

const SAMPLES = 60;
const SPARK = { width: 96, height: 18 };
const DOING = { idle: "idle", reading: "reads a prompt", answering: "answers", gang: "shares a prompt" };

const history = new Map(); // rank: {at, busy_s, shares: [...]}

/** The shares of the last moments in which the rank computed, 0 to 1, the newest last. */
function shares(index, rank, now) {
  const known = history.get(index) ?? { at: now, busy_s: rank.busy_s, shares: [] };
  const seconds = (now - known.at) / 1000;
  if (seconds > 0.05) {
    known.shares.push(Math.min(1, Math.max(0, (rank.busy_s - known.busy_s) / seconds)));
    known.shares = known.shares.slice(-SAMPLES);
    known.at = now;
    known.busy_s = rank.busy_s;
  }
  history.set(index, known);
  return known.shares;
}

function makeRank() {
  const pages = svg("svg", { class: "pages", height: "8", "aria-hidden": "true" },
    svg("rect", { class: "free", width: "100%", height: "8", rx: "4" }),
    svg("rect", { class: "cached", height: "8", rx: "4" }), svg("rect", { class: "used", height: "8", rx: "4" }));
  const spark = svg("svg", { class: "spark", width: SPARK.width, height: SPARK.height, "aria-hidden": "true" }, svg("path"), svg("polyline"));
  return el("li", {},
    el("div", { class: "rank-head" }, el("h3", {}), el("span", { class: "doing" }), el("span", { class: "space" }), spark, el("span", { class: "busy" })),
    pages, el("p", { class: "faint rank-facts" }));
}

function drawSpark(spark, values) {
  const step = SPARK.width / (SAMPLES - 1);
  const first = SPARK.width - step * (values.length - 1);
  const points = values.map((value, i) => `${(first + i * step).toFixed(1)},${(SPARK.height - 1 - value * (SPARK.height - 2)).toFixed(1)}`);
  spark.lastElementChild.setAttribute("points", points.join(" "));
  const area = points.length > 1 ? `M${first.toFixed(1)},${SPARK.height} L${points.join(" L")} L${SPARK.width},${SPARK.height} Z` : "";
  spark.firstElementChild.setAttribute("d", area);
}

function updateRank(element, { index, rank, now }) {
  setText(element.querySelector("h3"), `rank ${index} · ${rank.device}`);
  const doing = element.querySelector(".doing");
  doing.dataset.doing = rank.doing;
  setText(doing, DOING[rank.doing] ?? rank.doing);
  const values = shares(index, rank, now);
  drawSpark(element.querySelector(".spark"), values);
  const recent = values.slice(-5);
  const mean = recent.reduce((sum, value) => sum + value, 0) / Math.max(1, recent.length);
  setText(element.querySelector(".busy"), `${percent(mean)} busy`);

  const [, cached, used] = element.querySelector(".pages").children;
  const share = (pages) => `${(100 * pages) / Math.max(1, rank.pages)}%`;
  cached.setAttribute("width", share(rank.pages_used + rank.pages_cached));
  used.setAttribute("width", share(rank.pages_used));
  const free = Math.max(0, rank.pages - rank.pages_used - rank.pages_cached);
  const facts = [`${plural(rank.pages, "page")}: ${count(rank.pages_used)} in use, ${count(rank.pages_cached)} cached, ${count(free)} free`];
  if (rank.requests > 0) facts.push(plural(rank.requests, "request"));
  if (rank.bytes_sent > 0) facts.push(`${bytes(rank.bytes_sent)} sent`);
  setText(element.querySelector(".rank-facts"), facts.join(" · "));
}

export function drawRanks(ranks) {
  const now = performance.now();
  const items = ranks.map((rank, index) => ({ index, rank, now }));
  syncList(byId("ranks"), items, (item) => item.index, makeRank, updateRank);
}
