// One answer on the page: the progress of its prompt phase, its text as it comes, and what is known at its end.
import { byId, el, setText } from "/page/dom.js";
import { count, milliseconds, plural } from "/page/format.js";
import { markdown } from "/page/markdown.js";

const DRAW_EVERY_MS = 60;

const REASONS = { length: "ended at its most tokens", stop: "", stopped: "stopped by you" };

function factsOf(usage, runahead, finish) {
  const facts = [];
  if (runahead?.ttft_ms) {
    const predicted = runahead.predicted_ttft_ms ? ` (predicted ${milliseconds(runahead.predicted_ttft_ms)})` : "";
    facts.push(`first token after ${milliseconds(runahead.ttft_ms)}${predicted}`);
  }
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    facts.push(`${plural(usage.prompt_tokens, "prompt token")}${cached > 0 ? `, ${count(cached)} of them cached` : ""}`);
  }
  const ranks = runahead?.members?.length ?? 0;
  if (ranks > 1) facts.push(`read by ${ranks} ranks`);
  if (usage) {
    const pace = runahead?.tpot_ms ? `, ${milliseconds(runahead.tpot_ms)} each` : "";
    facts.push(`${plural(usage.completion_tokens, "new token")}${pace}`);
  }
  const reason = finish in REASONS ? REASONS[finish] : finish;
  if (reason) facts.push(reason);
  return facts;
}

export class AnswerView {
  constructor() {
    this.text = "";
    this.bar = el("progress", { max: "1", "aria-label": "Reading the prompt" });
    this.label = el("span", { class: "faint" }, "Waiting for the ranks");
    this.progress = el("div", { class: "progress" }, this.bar, this.label);
    this.body = el("div", { class: "text" });
    this.facts = el("p", { class: "facts faint" });
    this.element = el("li", { class: "message answer", "aria-busy": "true" }, el("h3", { class: "hidden" }, "Answer"), this.progress, this.body, this.facts);
    this.timer = 0;
  }

  /** `progress`: {total, cache, processed, predicted_left_ms}, tokens; what is cached counts as processed. */
  showProgress(progress) {
    const { total, cache = 0, processed = 0, predicted_left_ms: left = 0 } = progress;
    if (!total) return;
    this.bar.value = Math.min(1, processed / total);
    const parts = [`${count(processed)} of ${plural(total, "token")}`];
    if (cache > 0) parts.push(`${count(cache)} cached`);
    if (left > 0) parts.push(`about ${milliseconds(left)} left`);
    setText(this.label, parts.join(" · "));
  }

  add(text) {
    if (!text) return;
    this.progress.hidden = true;
    this.text += text;
    if (!this.timer) this.timer = setTimeout(() => this.draw(), DRAW_EVERY_MS);
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = 0;
    const scroll = byId("scroll");
    const follows = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
    this.body.replaceChildren(...markdown(this.text.trim()));
    if (follows) scroll.scrollTop = scroll.scrollHeight;
  }

  /** `finish`: "stop", "length", or "stopped" by the person. */
  end(finish, usage, runahead) {
    this.draw();
    this.progress.hidden = true;
    this.element.removeAttribute("aria-busy");
    const silent = this.text.trim() === "";
    const stopped = finish === "stopped";
    if (silent) this.body.replaceChildren(el("p", { class: "faint" }, stopped ? "Stopped before the answer began." : "The model ended without a word."));
    if (!silent || !stopped) setText(this.facts, factsOf(usage, runahead, finish).join(" · "));
    setText(byId("announce"), silent ? this.body.textContent : `Answer${stopped ? ", stopped" : ""}: ${this.text.trim()}`);
  }
}
