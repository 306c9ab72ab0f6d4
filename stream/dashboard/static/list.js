// The alarms of the ward, or of a bed, as the journal has them: filtered, each with its strip, and for export.

import { el, natural, put } from "./dom.js";
import { mark, words } from "./store.js";
import { strip } from "./paper.js";

const LIMIT = 200;

export class AlarmTable {
  constructor(app, bed = "") {
    this.app = app;
    this.filter = { bed, priority: "", state: "" };
    this.due = Infinity;
    const choice = (name, label, options) => {
      const select = el("select", { onchange: ({ target }) => { this.filter[name] = target.value; this.load(); } }, options.map(([value, text]) => el("option", { value }, text)));
      return el("label", {}, label, select);
    };
    this.beds = choice("bed", "Bed ", [["", "all"]]);
    this.link = el("a.export", { download: "alerts.csv" }, "Export CSV");
    this.body = el("tbody");
    this.note = el("p.note", { role: "status" });
    this.node = el("div.alarmtable", {},
      el("div.filters", { role: "group", "aria-label": "Filters" },
        bed ? null : this.beds,
        choice("priority", "Priority ", [["", "all"], ["high", "*** red"], ["medium", "** yellow"], ["low", "* low"], ["technical", "!! technical"]]),
        choice("state", "State ", [["", "all"], ["active", "active"], ["latched", "latched"], ["inactive", "over"]]),
        this.link),
      el("table", {}, el("thead", {}, el("tr", {}, ...["Began", "Bed", "Alarm", "State", "Acknowledged", "Strip"].map((h) => el("th", { scope: "col" }, h)))), this.body),
      this.note);
    this.rows = new Map();
    this.all = Boolean(!bed);
  }

  changed() { this.due = Math.min(this.due, performance.now() + 700); }

  tick(now) {
    if (now > this.due) this.load();
  }

  async load() {
    this.due = performance.now() + 10000;
    const query = new URLSearchParams({ limit: LIMIT });
    if (this.filter.bed) query.set("bed", this.filter.bed);
    const answer = await fetch(`/api/alerts?${query}`).catch(() => null);
    if (!answer?.ok) { this.note.textContent = answer ? await answer.text() : "the server is not there"; return; }
    const { alerts } = await answer.json();
    if (["high", "medium", "low"].includes(this.filter.priority)) query.set("priority", this.filter.priority);
    this.link.href = `/api/alerts.csv?${query}`;
    if (this.all) this._beds();
    const wanted = alerts.filter(({ event }) => (!this.filter.state || event.state === this.filter.state)
      && (!this.filter.priority || (event.kind === "technical" ? "technical" : event.priority) === this.filter.priority));
    const rows = new Map();
    for (const life of wanted) {
      const { event } = life, before = this.rows.get(event.alert_id);
      rows.set(event.alert_id, before?.event_id === event.event_id ? before : this._row(life, before));
    }
    this.rows = rows;
    this.body.replaceChildren(...[...rows.values()].map(({ row }) => row));
    this.note.textContent = wanted.length ? "" : "no alarm is like that";
  }

  _beds() {
    const select = this.beds.querySelector("select"), known = new Set([...select.options].map((o) => o.value));
    for (const name of [...this.app.store.beds.keys()].sort(natural)) if (!known.has(name)) select.append(el("option", { value: name }, name));
  }

  _row({ event: e, started, ended }, before) {
    const drawn = before?.row.querySelector(".strip");
    const place = el("td.place", {}, !e.strip ? "–" : drawn ?? el("button", { type: "button", onclick: ({ target }) => this._strip(e, target.parentElement), "aria-label": `Show the strip of ${e.bed} ${words(e)}` }, "Show"));
    const notes = [held(e.suppressed_by), e.reason].filter(Boolean).join(", ");
    const row = el("tr", { dataset: { priority: e.kind === "technical" ? "technical" : e.priority, state: e.state } },
      el("td", {}, el("time", { datetime: started }, new Date(started).toLocaleTimeString("en-GB"))),
      el("td", {}, el("a", { href: `#/bed/${encodeURIComponent(e.bed)}` }, e.bed)),
      el("td", {}, el("b", {}, `${mark(e)} ${words(e)}`), notes ? el("small", {}, ` ${notes}`) : null),
      el("td", {}, e.state === "inactive" ? `over${ended ? ` ${new Date(ended).toLocaleTimeString("en-GB")}` : ""}` : e.state),
      el("td", {}, e.ack ? `${e.ack.by ?? "?"}` : ""),
      place);
    put(row, "data-held", Boolean(e.suppressed_by));
    return { row, event_id: e.event_id };
  }

  async _strip(e, place) {
    const answer = await fetch(`/api/strip/${encodeURIComponent(e.alert_id)}`).catch(() => null);
    if (!answer?.ok) { place.replaceChildren(answer?.status === 404 ? "none kept" : "cannot be had"); return; }
    const canvas = el("canvas.strip", { role: "img", "aria-label": `ECG strip of ${e.bed} ${words(e)}, decision marked` });
    place.replaceChildren(canvas);
    strip(canvas, await answer.json());
  }
}

/** Why an alarm is not sounded: another one of its chain stands or was just told, or the pulse goes on. */
const held = (by) => (!by ? "" : by === "pulse" ? "held back: the pulse goes on" : "held back by another alarm");

export class AlarmList {
  constructor(app) {
    this.table = new AlarmTable(app);
    this.node = el("div.listpage", {}, el("h1", {}, "Alarms of the ward"), this.table.node);
  }

  enter() { this.table.load(); }
  leave() {}
  tick(now) { this.table.tick(now); }
  change({ what }) { if (what === "alert") this.table.changed(); }
}
