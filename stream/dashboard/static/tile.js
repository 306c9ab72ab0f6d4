// One bed on the overview.

import { age, clock, el, put, say, svg } from "./dom.js";
import { acknowledge, audioPause } from "./acting.js";
import { mark, words } from "./store.js";
import { scale } from "./scale.js";
import { Sweep } from "./sweep.js";

export const RHYTHMS = {
  N: "SINUS RHYTHM", AF: "ATRIAL FIB", AFL: "ATRIAL FLUTTER", SVT: "SVT", VT: "VENT TACHY", VF: "VENT FIB", ASYS: "ASYSTOLE",
  PACED: "PACED", NOISE: "NOISE", OTHER: "OTHER RHYTHM",
};

export const number = (value) => (value === null || value === undefined ? "-?-" : Math.round(value).toString());
export const paused = { audio_pause: "AUDIO PAUSED", alarm_pause: "ALARMS PAUSED", alarms_off: "ALARMS OFF" };

/** A crossed bell before the words, where there are any: drawn, for not every machine has a letter for it. */
export function ring(node, words) {
  if (node.lastChild?.textContent === words || (!words && !node.firstChild)) return;
  const cross = svg("svg", { viewBox: "0 0 20 20", "aria-hidden": "true" },
    svg("path", { d: "M10 2a5 5 0 0 0-5 5v4l-2 3h14l-2-3V7a5 5 0 0 0-5-5zM8 16a2 2 0 0 0 4 0z", fill: "currentColor" }),
    svg("path", { d: "M2 2l16 16", stroke: "#0e151d", "stroke-width": "4" }), svg("path", { d: "M2 2l16 16", stroke: "currentColor", "stroke-width": "2" }));
  node.replaceChildren(...(words ? [cross, words] : []));
}

/** "ALARMS OFF 0:59:12" of a bed whose alarms are off, empty where they are not. */
export function bell(bed, now) {
  if (!bed.off || bed.off[1] <= now) return "";
  const left = Math.ceil((bed.off[1] - now) / 1000), s = String(left % 60).padStart(2, "0");
  return `${paused[bed.off[0]]} ${Math.floor(left / 60)}:${s}`;
}

export class Tile {
  constructor(app, bed) {
    this.app = app;
    this.bed = bed;
    this.name = el("a.name", { href: `#/bed/${encodeURIComponent(bed.name)}`, title: bed.name }, bed.name);
    this.age = el("span.age");
    this.rhythm = el("span.rhythm");
    this.bell = el("span.bell");
    this.alarm = el("div.alarm");
    this.inop = el("div.inop");
    this.hr = el("div.hr");
    this.pvc = el("div.pvc");
    this.scaleWords = el("span.scale");
    this.leads = el("div.leads", { "aria-hidden": "true" });
    this.canvas = el("canvas", { "aria-hidden": "true" });
    this.lost = el("div.lost", { hidden: true });
    this.ack = el("button.ack", { type: "button", onclick: () => acknowledge(app, bed.name) }, "Ack");
    this.node = el("article.tile", { tabindex: "0", onkeydown: (event) => this._key(event) },
      this.alarm,
      el("div.who", {}, this.name, this.rhythm, this.bell, this.age),
      el("div.wave", {}, this.canvas, this.leads, this.scaleWords, this.lost),
      el("div.numbers", {}, el("div.label", {}, "HR"), this.hr, this.pvc),
      this.inop, this.ack);
    this.sweep = new Sweep(this.canvas);
    this.update(performance.now());
  }

  /** The words and numbers; waves go by `frame`. */
  update(now) {
    const { bed, app } = this, stale = bed.stale(now), server = app.store.now();
    const [alarm] = bed.physiological, [inop] = bed.technical;
    const known = !stale && bed.numeric;
    say(this.hr, known ? number(bed.numeric.hr) : "-?-");
    say(this.pvc, `PVC/min ${known ? number(bed.numeric.pvc) : "-?-"}`);
    const rhythm = known ? RHYTHMS[bed.numeric.rhythm] ?? bed.numeric.rhythm : "";
    say(this.rhythm, rhythm);
    say(this.age, age(this._age(now)));
    put(this.age, "data-late", this._age(now) > 3);
    const off = bell(bed, server);
    ring(this.bell, off);
    const line = alarm ? `${mark(alarm)} ${words(alarm)}${alarm.state === "latched" ? " (over)" : ""}${alarm.ack ? " ✓" : ""}` : "";
    say(this.alarm, line);
    say(this.inop, inop ? `!! ${words(inop)}` : "");
    put(this.node, "data-priority", alarm?.priority);
    put(this.node, "data-quiet", Boolean(alarm && (alarm.ack || off)));
    put(this.node, "data-stale", stale);
    put(this.inop, "hidden", !inop);
    const open = bed.standing.some((e) => !e.ack && (e.state === "latched" || e.priority !== "low"));
    put(this.ack, "hidden", !open || !app.store.may("operator"));
    put(this.ack, "aria-label", `Ack: acknowledge the alarms of ${bed.name}`);
    if (stale) {
      if (this.lost.hidden) this.sweep.clear();
      say(this.lost, `STALE  no data since ${clock(Date.now() - 1000 * bed.silent_s(now))}`);
    }
    put(this.lost, "hidden", !stale);
    const label = [bed.name, stale ? "no data" : `heart rate ${known ? number(bed.numeric.hr) : "unknown"}`, rhythm, line, inop && words(inop), off];
    put(this.node, "aria-label", label.filter(Boolean).join(", "));
  }

  layout() {
    this.sweep.reset();
    const { trace } = this.bed;
    const names = trace ? this.sweep.rows.map((row) => trace.signals[row].name) : [];
    this.leads.replaceChildren(...names.map((name) => el("span", {}, name)));
    say(this.scaleWords, trace ? `${this.sweep.gain} mm/mV` : "");
    this.canvas.title = scale.words;
  }

  frame(now) {
    const { trace } = this.bed;
    if (trace && this.sweep.trace !== trace) {
      this.sweep.show(trace, trace.few);
      this.layout();
    }
    if (this.lost.hidden) this.sweep.frame(now);
  }

  _age(now) {
    const { bed } = this, silent = bed.silent_s(now);
    return (bed.status?.age_ms ?? 0) / 1000 * (silent < 1.5) + (silent > 1.2 ? silent : 0);
  }

  _key(event) {
    if (event.target !== this.node || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") location.hash = this.name.hash;
    else if (event.key === "a") acknowledge(this.app, this.bed.name);
    else if (event.key === "p") audioPause(this.app, this.bed.name);
    else return;
    event.preventDefault();
  }
}
