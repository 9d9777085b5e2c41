// What a conversation becomes on its way to the server: messages for a chat template, or one text for a model without.
import { sampling, settings } from "/page/settings.js";

const withDocuments = (turn) => [...turn.documents.map((document) => document.text.trimEnd()), turn.text].join("\n\n");

function asMessages(turns) {
  const messages = turns.map((turn) =>
    turn.role === "user" ? { role: "user", content: withDocuments(turn) } : { role: "assistant", content: turn.text },
  );
  const system = settings().system;
  return system ? [{ role: "system", content: system }, ...messages] : messages;
}

/** "Question: ...\nAnswer:" behind the documents; answers as they came, so that their rows are found again. */
function asQuestions(turns) {
  const parts = settings().system ? [settings().system] : [];
  for (const turn of turns) {
    if (turn.role === "user") {
      parts.push(...turn.documents.map((document) => document.text.trimEnd()), `Question: ${turn.text}\nAnswer:`);
    } else {
      parts.push(parts.pop() + turn.text);
    }
  }
  return parts.join("\n\n");
}

function asPlainText(turns) {
  const opening = settings().system ? `${settings().system}\n\n` : "";
  return opening + turns.map((turn) => (turn.role === "user" ? withDocuments(turn) : turn.text)).join("");
}

/** The path and the body that ask `model` for the answer to `turns`, in one of the forms "chat", "questions" and "plain". */
export function completionRequest(model, form, turns) {
  const common = { model, stream: true, stream_options: { include_usage: true }, return_progress: true, ...sampling() };
  if (form === "chat") return { path: "/v1/chat/completions", body: { messages: asMessages(turns), ...common } };
  const body =
    form === "questions" ? { prompt: asQuestions(turns), stop: ["\nQuestion:"], ...common } : { prompt: asPlainText(turns), ...common };
  return { path: "/v1/completions", body };
}

/** The text that a chunk of either kind adds. */
export function textOf(chunk) {
  const choice = chunk.choices?.[0];
  return choice?.delta?.content ?? choice?.text ?? "";
}
