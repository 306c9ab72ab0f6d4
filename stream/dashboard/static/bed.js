// One bed: every lead on ECG paper, beats as they are judged, rhythm, trend, profile, alarms and limits.

import { age, clock, el, put, say } from "./dom.js";
import { act, acknowledge, controls } from "./acting.js";
import { bell, number, RHYTHMS, ring } from "./tile.js";
import { AlarmTable } from "./list.js";
import { grid } from "./paper.js";
import { limit, mark, since, words } from "./store.js";
import { scale } from "./scale.js";
import { Sweep } from "./sweep.js";
import { Trend } from "./trend.js";

const ROOM = 22; // css px above the leads, for the beats' labels
const EXPERTS = ["narrow 3", "7", "15", "wide 23"]; // of the morphology path, by the samples that their kernels span
const PATHS = ["RR statistics", "RR sequence", "band", "morphology path", "rhythm path"];
export const RIBBON = { N: "#2e7d4f", AF: "#b58900", AFL: "#9c7a1a", SVT: "#c05a00", VT: "#d4162a", VF: "#a00018", ASYS: "#5b0a12", PACED: "#3567b0", NOISE: "#555f6a", OTHER: "#6a4fa3" };

export class BedPage {
  constructor(app, name) {
    this.app = app;
    this.name = name;
    this.hr = el("span.hr");
    this.pvc = el("span.pvc");
    this.rhythm = el("span.rhythm");
    this.age = el("span.age");
    this.bell = el("span.bell");
    this.alarms = el("ul.standing", { "aria-label": "Alarms that stand" });
    this.paper = el("canvas.paper", { "aria-hidden": "true" });
    this.canvas = el("canvas.trace", { role: "img", "aria-label": `All leads of ${name}` });
    this.lost = el("div.lost", { hidden: true });
    this.leads = el("div.leads", { "aria-hidden": "true" });
    this.tip = el("div.tip", { role: "tooltip", hidden: true });
    this.beats = el("ol.beats", { "aria-label": "The last beats", tabindex: "0" });
    this.ribbon = el("canvas.ribbon", { role: "img", "aria-label": "Rhythms of the last hour" });
    this.legend = el("p.legend", {});
    this.profile = el("dl.profile");
    this.trend = new Trend(app, name);
    this.table = new AlarmTable(app, name);
    this.limits = el("div.limits");
    this.scaleWords = el("span.scale");
    this.node = el("div.bedpage", {},
      el("div.head", {}, el("h1", {}, name), this.rhythm, this.bell, this.age,
        el("div.figures", {}, el("span.label", {}, "HR"), this.hr, this.pvc)),
      this.alarms, this.controls = controls(app, name),
      el("section.waves", { "aria-label": "Waves" }, this.paper, this.canvas, this.leads, this.scaleWords, this.lost, this.tip),
      el("section.beatlist", { "aria-label": "Beats" }, el("h2", {}, "Beats: what each was judged, RR in ms, and which experts spoke"), this.beats),
      el("section", {}, el("h2", {}, "Rhythm, the last hour"), this.ribbon, this.legend),
      el("div.columns", {},
        el("section.trendbox", {}, el("h2", {}, "Heart rate"), this.trend.node),
        el("section", {}, el("h2", {}, "Profile ", el("small", {}, "research")), this.profile)),
      el("section", {}, el("h2", {}, "Alarms"), this.table.node),
      el("details.limitbox", { ontoggle: ({ target }) => { if (target.open) this._limits(); } }, el("summary", {}, "Limits"), this.limits));
    this.sweep = new Sweep(this.canvas, { label: true, room: ROOM });
    this.canvas.addEventListener("mousemove", (event) => this._hover(event));
    this.canvas.addEventListener("mouseleave", () => put(this.tip, "hidden", true));
  }

  get bed() { return this.app.store.beds.get(this.name); }

  enter() {
    this.onResize = () => this._layout(true);
    addEventListener("resize", this.onResize);
    addEventListener("scale", this.onResize);
    this._view();
    this.trend.load();
    this.table.load();
    this._ribbonDue = 0;
  }

  leave() {
    removeEventListener("resize", this.onResize);
    removeEventListener("scale", this.onResize);
    this.trend.leave();
    this.app.link.send({ t: "view", beds: [], every: false });
  }

  _view() {
    if (this.bed) this.app.link.send({ t: "view", beds: [this.name], every: true });
  }

  change({ what, bed, detail }) {
    if (what === "snapshot") {
      const fresh = controls(this.app, this.name);
      this.controls.replaceWith(fresh);
      this.controls = fresh;
      this._standingKey = null;
    }
    if (what === "snapshot" || (what === "beds" && this.bed)) this._view();
    if (bed?.name !== this.name) return;
    if (what === "beat") {
      this.sweep.mark(detail);
      this._beat(detail);
    } else if (what === "alert") this.table.changed();
    else if (what === "window") this._profile(bed.window);
    else if (what === "signals") this._layout(true);
  }

  frame(now) {
    const trace = this.bed?.trace;
    if (!trace) return;
    if (this.sweep.trace !== trace) this._layout(true);
    if (this.lost.hidden) this.sweep.frame(now);
  }

  tick(now) {
    const { bed } = this;
    put(this.controls, "hidden", !bed);
    if (!bed) { say(this.rhythm, "no such bed, or not yet"); return; }
    const stale = bed.stale(now), known = !stale && bed.numeric;
    say(this.hr, known ? number(bed.numeric.hr) : "-?-");
    say(this.pvc, `PVC/min ${known ? number(bed.numeric.pvc) : "-?-"}`);
    say(this.rhythm, known && bed.window ? `${RHYTHMS[bed.window.rhythm] ?? bed.window.rhythm} ${Math.round(100 * bed.window.confidence)} %` : "");
    say(this.age, `data ${age(stale ? bed.silent_s(now) : (bed.status?.age_ms ?? 0) / 1000)} old`);
    const off = bell(bed, this.app.store.now());
    ring(this.bell, off);
    if (stale && this.lost.hidden) this.sweep.clear();
    say(this.lost, `STALE  no data since ${clock(Date.now() - 1000 * bed.silent_s(now))}`);
    put(this.lost, "hidden", !stale);
    this._standing(bed);
    if (this.beats.childElementCount === 0 && bed.beats.length) bed.beats.slice(-12).forEach((beat) => this._beat(beat));
    if (bed.window && !this.profile.childElementCount) this._profile(bed.window);
    if (now > this._ribbonDue) { this._ribbonDue = now + 4000; this._ribbon(); }
    this.trend.tick(now);
    this.table.tick(now);
  }

  _layout() {
    const trace = this.bed?.trace;
    if (!trace) return;
    const rows = trace.signals.map((_, i) => i), mm = scale.pxPerMm;
    const lane = Math.max(26 * mm, Math.min(38 * mm, 420 / rows.length));
    this.canvas.parentElement.style.setProperty("--tall", `${Math.min(ROOM + rows.length * lane, 780)}px`);
    this.sweep.show(trace, rows);
    for (const beat of this.bed.beats) this.sweep.beats.push(beat);
    grid(this.paper, this.sweep.pulse / this.sweep.dpr);
    this.leads.replaceChildren(...rows.map((row, i) => {
      const label = el("span", {}, `${trace.signals[row].name}${trace.signals[row].kind === "ecg" ? "" : ` (${trace.signals[row].unit}, made to fit)`}`);
      label.style.top = `${this.sweep.lanes[i].top / this.sweep.dpr}px`;
      return label;
    }));
    say(this.scaleWords, `${scale.words}, ${this.sweep.gain} mm/mV`);
  }

  _standing(bed) {
    const key = bed.standing.map((e) => e.event_id).join();
    if (key === this._standingKey) return;
    this._standingKey = key;
    const may = this.app.store.may("operator");
    this.alarms.replaceChildren(...bed.standing.map((e) => el("li", { dataset: { priority: e.kind === "technical" ? "technical" : e.priority, quiet: e.ack ? "" : undefined } },
      el("strong", {}, `${mark(e)} ${words(e)}`),
      el("span", {}, [limit(e), e.state === "latched" ? "over, latched" : "", e.reason, `since ${clock(since(e))}`, e.ack ? `acknowledged by ${e.ack.by ?? "?"}` : ""].filter(Boolean).join(" · ")),
      e.ack || !may ? null : el("button", { type: "button", onclick: () => acknowledge(this.app, this.name, e.alert_id) }, "Ack"))));
  }

  _beat(beat) {
    const gates = beat.gates ?? [];
    const bars = gates.map((share, i) => {
      const bar = el("i", { title: `${EXPERTS[i] ?? i}: ${Math.round(100 * share)} %` });
      bar.style.setProperty("--share", share);
      return bar;
    });
    const said = gates.length ? `experts ${gates.map((g, i) => `${EXPERTS[i] ?? i} ${Math.round(100 * g)} %`).join(", ")}` : "no experts: the model was away";
    this.beats.append(el("li", { dataset: { label: beat.label }, title: said, "aria-label": `${beat.label}, ${Math.round(100 * beat.confidence)} % sure, RR ${beat.rr} ms; ${said}` },
      el("b", {}, beat.label), el("small", {}, String(beat.rr)), el("span.gates", { "aria-hidden": "true" }, ...bars)));
    while (this.beats.childElementCount > 16) this.beats.firstElementChild.remove();
  }

  _hover(event) {
    const { sweep } = this, box = this.canvas.getBoundingClientRect(), x = (event.clientX - box.left) * sweep.dpr;
    const near = sweep.beats.filter((beat) => sweep.trace && sweep.visible(beat.at)).map((beat) => ({ beat, apart: Math.abs(sweep.x(beat.at) - x) })).sort((a, b) => a.apart - b.apart)[0];
    const shown = near && near.apart < 14 * sweep.dpr;
    put(this.tip, "hidden", !shown);
    if (!shown) return;
    const { beat } = near;
    this.tip.replaceChildren(
      el("b", {}, `${beat.label}  ${Math.round(100 * beat.confidence)} %  RR ${beat.rr} ms`),
      ...(beat.gates ?? []).map((share, i) => {
        const row = el("div.gate", {}, el("span", {}, EXPERTS[i] ?? String(i)), el("i"), el("span", {}, `${Math.round(100 * share)} %`));
        row.style.setProperty("--share", share);
        return row;
      }));
    this.tip.style.left = `${Math.min(box.width - 180, sweep.x(beat.at) / sweep.dpr)}px`;
  }

  _profile(window) {
    const { profile } = window, row = (name, value, sure) => [el("dt", {}, name), el("dd", {}, value, sure ? el("small", {}, ` ${sure}`) : null)];
    const figure = (name, unit, digits = 0, factor = 1) => (profile[name] ? [`${(profile[name][0] * factor).toFixed(digits)} ${unit}`, `± ${(profile[name][1] * factor).toFixed(digits)}`] : ["-?-", ""]);
    const chance = (name) => (profile[name] ? [`${Math.round(100 * profile[name][0])} %`, `± ${Math.round(100 * profile[name][1])}`] : ["-?-", ""]);
    const kinds = { N: "normal", A: "atrial fibrillation", O: "other", "~": "noise" };
    this.profile.replaceChildren(...[
      row("RR interval", ...figure("rr_ms", "ms")), row("Age", ...figure("age_years", "years")), row("Male", ...chance("male")),
      row("Potassium abnormal (simulated)", ...chance("potassium_abnormal")),
      row("Arrhythmia", profile.arrhythmia ? kinds[profile.arrhythmia[0]] ?? profile.arrhythmia[0] : "-?-", profile.arrhythmia ? `${Math.round(100 * profile.arrhythmia[1])} % of windows` : ""),
      row("Shockable rhythm", `${Math.round(100 * window.shockable)} %`), row("Signal quality", `${Math.round(100 * window.quality)} %`),
      row("Experts of the rhythm", (window.gates ?? []).map((g, i) => `${PATHS[i] ?? i} ${Math.round(100 * g)} %`).join(", ") || "-?-"),
    ].flat());
  }

  async _ribbon() {
    const told = await this.trend.fetch();
    if (!told || !this.node.isConnected) return;
    const canvas = this.ribbon, context = canvas.getContext("2d"), now = this.app.store.now() / 1000;
    canvas.width = canvas.clientWidth;
    canvas.height = canvas.clientHeight;
    const first = Math.max(now - 3600, told.ribbon[0]?.[0] ?? now), span = Math.max(60, now - first), seen = new Set();
    told.ribbon.forEach(([t, rhythm], i) => {
      const end = Math.min(told.ribbon[i + 1]?.[0] ?? now, t + 10);
      context.fillStyle = RIBBON[rhythm] ?? "#555";
      context.fillRect((t - now + span) / span * canvas.width, 0, Math.max(1, (end - t) / span * canvas.width), canvas.height);
      seen.add(rhythm);
    });
    this.legend.replaceChildren(`${Math.round(span / 60)} min: `, ...[...seen].map((rhythm) => {
      const box = el("i");
      box.style.background = RIBBON[rhythm] ?? "#555";
      return el("span", {}, box, RHYTHMS[rhythm] ?? rhythm);
    }));
  }

  async _limits() {
    const answer = await fetch(`/api/limits/${encodeURIComponent(this.name)}`);
    if (!answer.ok) { this.limits.replaceChildren(el("p", {}, await answer.text())); return; }
    const { limits } = await answer.json(), may = this.app.store.may("operator"), fields = [];
    const field = (row, l) => {
      const input = el("input", { type: "number", min: l.low, max: l.high, step: "any", value: l.value, disabled: !may, "aria-label": `${row.words} ${row.code} ${l.name}, ${l.low} to ${l.high} ${l.unit}` });
      fields.push({ code: row.code, name: l.name, input, was: l.value });
      return el("label", {}, `${l.name.replaceAll("_", " ")} `, input, el("small", {}, ` ${l.low.toFixed(3).replace(/\.?0+$/, "")} to ${l.high} ${l.unit}`));
    };
    const rows = limits.filter((row) => row.kind !== "technical" || row.limits.length).map((row) => {
      const on = row.can_be_off ? el("input", { type: "checkbox", checked: row.enabled, disabled: !may, "aria-label": `${row.words} ${row.code} on` }) : null;
      if (on) fields.push({ code: row.code, name: "enabled", input: on, was: row.enabled });
      return el("tr", {}, el("th", { scope: "row" }, `${row.words} `, el("small", {}, row.code)), el("td", {}, on ?? (row.kind === "general" ? "" : "always on")), el("td", {}, row.limits.map((l) => field(row, l))));
    });
    const set = async () => {
      const changes = {};
      for (const { code, name, input, was } of fields) {
        const value = name === "enabled" ? input.checked : Number(input.value);
        if (value !== was) (changes[code] ??= {})[name] = value;
      }
      if (Object.keys(changes).length && await act(this.app, this.name, "limits", { limits: changes })) this._limits();
    };
    this.limits.replaceChildren(
      el("table", {}, el("thead", {}, el("tr", {}, ...["Alarm", "On", "Limits and the range each may be set in"].map((h) => el("th", { scope: "col" }, h)))), el("tbody", {}, rows)),
      el("button", { type: "button", disabled: !may, onclick: set }, "Set these limits"));
  }
}
