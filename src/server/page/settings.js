// What a person sets for the answers. Lives in the tab's session storage, the key too, and nowhere else.
import { byId } from "/page/dom.js";

const STORE = "runahead-settings";
const DEFAULTS = { system: "", temperature: "0", max_tokens: "512", seed: "", form: "auto", key: "" };

let values = { ...DEFAULTS };
try {
  values = { ...DEFAULTS, ...JSON.parse(sessionStorage.getItem(STORE)) };
} catch {
  // No storage, or not ours: the defaults.
}

export const settings = () => values;

/** The fields of a completion request that were set. */
export function sampling() {
  const fields = {};
  for (const name of ["temperature", "max_tokens", "seed"]) {
    if (values[name] !== "") fields[name] = Number(values[name]);
  }
  return fields;
}

/** Opens the dialog, at the field of that name. */
export function openSettings(field = "system") {
  const form = byId("settings-form");
  for (const name of Object.keys(DEFAULTS)) form.elements[name].value = values[name];
  byId("settings").showModal();
  form.elements[field].focus();
}

/** `changed` is called after each save. */
export function watchSettings(changed) {
  const dialog = byId("settings");
  const form = byId("settings-form");
  byId("open-settings").addEventListener("click", () => openSettings());
  byId("cancel-settings").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    for (const name of Object.keys(DEFAULTS)) values[name] = form.elements[name].value.trim();
    try {
      sessionStorage.setItem(STORE, JSON.stringify(values));
    } catch {
      // Without storage they last until the page is loaded again.
    }
    dialog.close();
    changed();
  });
}
