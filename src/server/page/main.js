// Starts the page: the conversation, and what the ranks do beside it.
import { notice, showForm, startChat } from "/page/chat.js";
import { watchDocuments } from "/page/documents.js";
import { byId } from "/page/dom.js";
import { pollNow, startMonitor } from "/page/monitor.js";
import { watchSettings } from "/page/settings.js";

watchSettings(() => {
  showForm();
  pollNow();
});
watchDocuments((complaint) => notice(complaint));
byId("switch-view").addEventListener("click", (event) => {
  const ranks = document.documentElement.dataset.view === "chat";
  document.documentElement.dataset.view = ranks ? "ranks" : "chat";
  event.target.setAttribute("aria-pressed", String(ranks));
});
showForm();
startChat();
startMonitor();
