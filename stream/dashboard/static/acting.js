// What an operator can do, as buttons: each asks the gateway, and says what came of it.

import { el } from "./dom.js";

let toastTimer = 0;

/** A word at the foot of the page. */
export function toast(text, good = true) {
  const node = document.getElementById("toast");
  node.textContent = text;
  node.dataset.good = good;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { node.textContent = ""; }, 6000);
}

/** Who acts, where nobody is asked: a name for the journal. */
export const who = {
  get name() { try { return localStorage.getItem("wardbeat.who") ?? ""; } catch { return ""; } },
  set name(value) { try { localStorage.setItem("wardbeat.who", value.slice(0, 40)); } catch { /* private */ } },
};

export async function act(app, bed, kind, more = {}) {
  const { ok, text } = await app.link.ask({ t: "action", bed, kind, who: who.name, ...more });
  toast(ok ? `${bed}: ${WORDS[kind] ?? kind}` : `${bed}: refused: ${text}`, ok);
  return ok;
}

const WORDS = {
  acknowledge: "acknowledged", audio_pause: "audio paused for 2 min", alarm_pause: "alarms paused for 3 min",
  alarms_off: "alarms off for 1 h", alarms_on: "alarms on", limits: "limits set",
};

export const acknowledge = (app, bed, alert_id) => act(app, bed, "acknowledge", alert_id ? { alert_id } : {});
export const audioPause = (app, bed) => act(app, bed, "audio_pause", { until_s: 120 });

/** The buttons of a bed. */
export function controls(app, bed) {
  const may = app.store.may("operator");
  const button = (text, action, title) => el("button", { type: "button", onclick: action, disabled: !may, title }, text);
  return el("div.controls", { role: "group", "aria-label": `Alarms of ${bed}` },
    button("Acknowledge", () => acknowledge(app, bed), "Acknowledge all alarms of this bed (a)"),
    button("Pause audio 2 min", () => audioPause(app, bed), "Pause the sound of this bed (p)"),
    button("Pause alarms 3 min", () => act(app, bed, "alarm_pause", { until_s: 180 })),
    button("Alarms off 1 h", () => act(app, bed, "alarms_off", { until_s: 3600 })),
    button("Alarms on", () => act(app, bed, "alarms_on")));
}
