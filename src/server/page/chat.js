// The conversation: turns, the request that runs, its errors, and the keys that drive it.
import { AnswerView } from "/page/answer.js";
import { completionChunks } from "/page/api.js";
import { attach, documentList, fetchSample, hasDocuments, takeDocuments } from "/page/documents.js";
import { byId, el, setText } from "/page/dom.js";
import { completionRequest, textOf } from "/page/prompt.js";
import { openSettings, settings } from "/page/settings.js";

const SUGGESTED = 3;
const NO_CHAT = 501; // the status of a server that renders no conversations

let turns = []; // {role: "user", text, documents} and {role: "assistant", text}
let running = null; // the AbortController of the request that runs
let hasTemplate = true; // false: the server renders no conversations
let suggestions = [];

const messages = () => byId("messages");

function scrollToEnd() {
  const scroll = byId("scroll");
  scroll.scrollTop = scroll.scrollHeight;
}

function form() {
  const wanted = settings().form;
  if (wanted !== "auto") return wanted;
  return hasTemplate ? "chat" : "questions";
}

/** Says what the model is given where that is not a conversation. */
export function showForm() {
  const note = byId("form-note");
  const notes = {
    chat: "",
    plain: "Plain text: the model continues what you write.",
    questions: `${hasTemplate ? "Your" : "Without a chat template your"} messages go as “Question: … Answer:”.`,
  };
  setText(note, notes[form()]);
  note.hidden = note.textContent === "";
}

/** `known`: whether the server's model has a chat template. */
export function setTemplate(known) {
  if (known === hasTemplate) return;
  hasTemplate = known;
  showForm();
}

export function notice(text, ...actions) {
  const element = el("li", { class: "notice", role: "alert" }, el("p", {}, text), ...actions);
  messages().append(element);
  byId("welcome").hidden = true;
  scrollToEnd();
  return element;
}

function action(label, what) {
  return el("button", { type: "button", onclick: (event) => {
    event.target.closest(".notice").remove();
    what();
  } }, label);
}

function showFailure(error) {
  const again = action("Try again", () => answer());
  if (error.status === 401 || error.status === 403) {
    notice(`The server wants an API key. ${error.message}`, action("Enter a key", () => openSettings("key")), again);
  } else if (error.status === 429) {
    const wait = error.retryAfter > 0 ? ` It asks to be tried again in ${error.retryAfter} s.` : "";
    notice(`The server is busy: ${error.message}${wait}`, again);
  } else {
    notice(error.message, again);
  }
}

function setRunning(controller) {
  running = controller;
  const busy = controller !== null;
  const hadFocus = [byId("send"), byId("stop")].includes(document.activeElement);
  byId("send").hidden = busy;
  byId("stop").hidden = !busy;
  if (hadFocus) byId(busy ? "stop" : "message").focus();
  drawSuggestions();
}

async function* chunksOfAnswer(signal) {
  const attempt = () => {
    const { path, body } = completionRequest(byId("model").textContent || undefined, form(), turns);
    return completionChunks(path, { key: settings().key, body, signal });
  };
  try {
    yield* attempt();
  } catch (error) {
    if (error.status !== NO_CHAT || form() !== "chat") throw error;
    setTemplate(false);
    yield* attempt();
  }
}

/** Asks for the answer to the turns so far, and shows it as it comes. */
async function answer() {
  if (running) return;
  const controller = new AbortController();
  setRunning(controller);
  dispatchEvent(new Event("asked"));
  const view = new AnswerView();
  messages().append(view.element);
  scrollToEnd();
  let finish = "";
  let usage;
  let runahead;
  let failure = null;
  try {
    for await (const chunk of chunksOfAnswer(controller.signal)) {
      if (chunk.prompt_progress) view.showProgress(chunk.prompt_progress);
      view.add(textOf(chunk));
      finish = chunk.choices?.[0]?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
      runahead = chunk.runahead ?? runahead;
    }
  } catch (error) {
    if (error.name !== "AbortError") failure = error;
    finish = failure ? "not complete" : "stopped";
  }
  if (failure && view.text === "") view.element.remove();
  else view.end(finish, usage, runahead);
  if (view.text !== "" && !failure) turns.push({ role: "assistant", text: view.text });
  if (controller === running) setRunning(null);
  if (failure) showFailure(failure);
  scrollToEnd();
}

function ask(text) {
  if (running || (text === "" && !hasDocuments())) return;
  const unanswered = turns.at(-1)?.role === "user" ? turns.pop() : null; // its documents go with this message
  const turn = { role: "user", text, documents: [...(unanswered?.documents ?? []), ...takeDocuments()] };
  for (const old of messages().querySelectorAll(".notice")) old.remove();
  turns.push(turn);
  suggestions = suggestions.filter((question) => question !== text);
  byId("welcome").hidden = true;
  messages().append(
    el("li", { class: "message question" }, el("h3", { class: "hidden" }, "You"),
      ...(turn.documents.length > 0 ? [documentList(turn.documents)] : []), el("p", {}, text)),
  );
  answer();
}

function fit() {
  const message = byId("message");
  message.style.height = "auto";
  message.style.height = `${Math.min(message.scrollHeight, 240)}px`;
}

function send() {
  const message = byId("message");
  if (running) return;
  ask(message.value.trim());
  message.value = "";
  fit();
}

function drawSuggestions() {
  const group = byId("suggestions");
  const shown = running ? [] : suggestions.slice(0, SUGGESTED);
  group.hidden = shown.length === 0;
  group.replaceChildren(...shown.map((question) => el("button", { type: "button", class: "quiet", onclick: () => {
    ask(question);
    byId("message").focus();
  } }, question)));
}

async function loadSample() {
  const button = byId("load-sample");
  button.disabled = true;
  try {
    const sample = await fetchSample();
    attach({ name: sample.name, text: sample.text });
    suggestions = sample.questions.slice(1);
    byId("message").value = sample.questions[0];
    fit();
    drawSuggestions();
    byId("message").focus();
  } catch (error) {
    notice(error.message);
  }
  button.disabled = false;
}

function stop() {
  running?.abort();
}

function startAnew() {
  stop();
  turns = [];
  suggestions = [];
  takeDocuments();
  messages().replaceChildren();
  byId("welcome").hidden = false;
  byId("message").value = "";
  fit();
  drawSuggestions();
  byId("message").focus();
}

export function startChat() {
  byId("compose").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  byId("message").addEventListener("input", fit);
  byId("message").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !byId("settings").open) stop();
  });
  byId("stop").addEventListener("click", stop);
  byId("new").addEventListener("click", startAnew);
  byId("load-sample").addEventListener("click", loadSample);
  byId("message").focus();
}
