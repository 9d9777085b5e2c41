// The Markdown that answers use most, as DOM nodes: code blocks, headings, lists, bold, italics and code. Links,
// pictures and HTML stay text. Takes time in proportion to the text, whatever it is.
import { el } from "/page/dom.js";

const FENCE = /^ {0,3}(`{3,}|~{3,}) *([\w+#.-]*) *$/;
const HEADING = /^#{1,6} +(.*)$/;
const ITEM = /^ *([-*+]|\d{1,9}[.)]) +(.*)$/;

/** Where `mark`, which stands at `begin`, is closed; -1: nowhere, it is text. */
function closing(text, begin, mark) {
  const inside = begin + mark.length;
  const end = text.indexOf(mark, inside + 1);
  if (end < 0 || mark[0] === "`") return end;
  const tight = text[inside] !== " " && text[end - 1] !== " ";
  const same = text[end + mark.length] !== "*" || mark.length === 2;
  return tight && same ? end : -1;
}

function inline(text) {
  const nodes = [];
  const unclosed = new Set();
  const marks = /`+|\*\*?/g;
  let done = 0;
  for (let match = marks.exec(text); match; match = marks.exec(text)) {
    const mark = match[0];
    if (unclosed.has(mark)) continue;
    const end = closing(text, match.index, mark);
    if (end < 0) {
      if (text.indexOf(mark, marks.lastIndex) < 0) unclosed.add(mark);
      continue;
    }
    nodes.push(text.slice(done, match.index));
    const inner = text.slice(marks.lastIndex, end);
    if (mark[0] === "`") nodes.push(el("code", {}, inner.trim() || inner));
    else nodes.push(el(mark.length === 2 ? "strong" : "em", {}, ...inline(inner)));
    done = end + mark.length;
    marks.lastIndex = done;
  }
  nodes.push(text.slice(done));
  return nodes.filter((node) => node !== "");
}

function codeBlock(language, lines) {
  const text = lines.join("\n");
  const head = el("div", { class: "code-head" }, el("span", {}, language || "code"));
  if (navigator.clipboard) {
    const copy = el("button", { type: "button", class: "quiet small" }, "Copy");
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    });
    head.append(copy);
  }
  return el("div", { class: "code" }, head, el("pre", { tabindex: "0" }, el("code", {}, text)));
}

function paragraph(lines) {
  return el("p", {}, ...lines.flatMap((line, i) => [...(i > 0 ? [el("br")] : []), ...inline(line)]));
}

/** The nodes of `text`. A code block that is not closed goes on to the end. */
export function markdown(text) {
  const blocks = [];
  let open = []; // lines of a paragraph, or items of a list
  let list = null; // "ul", "ol", or null for a paragraph
  let start = 1;
  const close = () => {
    const items = () => open.map((item) => el("li", {}, ...inline(item)));
    if (list) blocks.push(el(list, { start: list === "ol" ? start : null }, ...items()));
    else if (open.length > 0) blocks.push(paragraph(open));
    open = [];
    list = null;
  };
  const lines = text.split("\n");
  for (let i = 0; i < lines.length; i += 1) {
    const fence = FENCE.exec(lines[i]);
    const heading = HEADING.exec(lines[i]);
    const item = ITEM.exec(lines[i]);
    const kind = item && (/\d/.test(item[1]) ? "ol" : "ul");
    const empty = lines[i].trim() === "";
    if (fence || heading || empty || (item && list !== kind)) close();
    if (fence) {
      const code = [];
      for (i += 1; i < lines.length && lines[i].trim() !== fence[1]; i += 1) code.push(lines[i]);
      blocks.push(codeBlock(fence[2], code));
    } else if (heading) {
      blocks.push(el("h4", {}, ...inline(heading[1])));
    } else if (item) {
      if (!list) start = parseInt(item[1], 10) || 1;
      list = kind;
      open.push(item[2]);
    } else if (!empty && list) {
      open[open.length - 1] += ` ${lines[i].trim()}`;
    } else if (!empty) {
      open.push(lines[i]);
    }
  }
  close();
  return blocks;
}
