// Text files that go into the prompt before the message: attached, dropped, or the sample.
import { request } from "/page/api.js";
import { byId, el } from "/page/dom.js";
import { bytes, count } from "/page/format.js";

const LARGEST = 16e6; // bytes; longer than any context in use

let documents = [];
let complain = () => {};

const detail = (document) => `${count(document.text.length)} characters`;

function chip(document, ...more) {
  return el("li", { class: "document" }, el("span", { class: "name" }, document.name), el("span", { class: "faint" }, detail(document)), ...more);
}

export const documentList = (list) => el("ul", { class: "documents", "aria-label": "Documents" }, ...list.map((document) => chip(document)));

function draw() {
  const list = byId("documents");
  list.hidden = documents.length === 0;
  list.replaceChildren(
    ...documents.map((document) => {
      const remove = el("button", { type: "button", class: "quiet small", "aria-label": `Remove ${document.name}` }, "Remove");
      remove.addEventListener("click", () => {
        documents = documents.filter((other) => other !== document);
        draw();
        byId("message").focus();
      });
      return chip(document, remove);
    }),
  );
}

export function attach(document) {
  documents.push(document);
  draw();
}

/** The documents that wait for a message, which are taken away. */
export function takeDocuments() {
  const taken = documents;
  documents = [];
  draw();
  return taken;
}

export const hasDocuments = () => documents.length > 0;

async function attachFiles(files) {
  for (const file of files) {
    if (file.size > LARGEST) {
      complain(`${file.name}: ${bytes(file.size)}, at most ${bytes(LARGEST)} can be attached.`);
      continue;
    }
    try {
      const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
      if (text.includes("\0")) throw new TypeError("binary");
      attach({ name: file.name, text: text.replace(/\r\n/g, "\n") });
    } catch (error) {
      complain(error instanceof TypeError ? `${file.name}: this is not text in UTF-8.` : `${file.name}: it cannot be read.`);
    }
  }
  byId("message").focus();
}

/** The sample: {name, text, questions}. */
export const fetchSample = async () => (await request("/page/sample.json")).json();

/** `onComplaint` is told what cannot be attached. */
export function watchDocuments(onComplaint) {
  complain = onComplaint;
  const file = byId("file");
  byId("attach").addEventListener("click", () => file.click());
  file.addEventListener("change", async () => {
    await attachFiles([...file.files]);
    file.value = "";
  });
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => carriesFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    attachFiles([...event.dataTransfer.files]);
  });
}
