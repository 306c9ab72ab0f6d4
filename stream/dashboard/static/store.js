// What the page knows of the ward. Pages listen to "change" with the bed it is about, and ask the rest.

import { Trace } from "./trace.js";

const ORDER = { high: 0, medium: 1, low: 2 };
const HEAD = 16;
export const STALE_S = 2.4; // told before three seconds are over, looked at four times a second

export class Bed {
  constructor(name) {
    this.name = name;
    this.alerts = new Map();
    this.numeric = this.status = this.window = this.off = this.trace = null;
    this.beats = [];
    this.heard = performance.now(); // when something new of its signal last came
    this.position = "";
  }

  /** Alarms that stand and are not held back by a graver one, the gravest first, the newest of equals. */
  get standing() {
    return [...this.alerts.values()].filter((e) => !e.suppressed_by).sort(graver);
  }

  get physiological() { return this.standing.filter((e) => e.kind !== "technical"); }
  get technical() { return this.standing.filter((e) => e.kind === "technical"); }

  silent_s(now) { return (now - Math.max(this.heard, this.trace?.heard ?? 0)) / 1000; }
  stale(now) { return this.silent_s(now) > STALE_S; }
}

export const graver = (a, b) =>
  ORDER[a.priority] - ORDER[b.priority] || (a.kind === "technical") - (b.kind === "technical") || since(b) - since(a);

/** When an alert began, ms since 1970. */
export const since = (event) => event.began ?? (event.stamps?.committed || event.stamps?.decided || 0) / 1e6;

export const mark = (e) => (e.kind === "technical" ? "!!" : { high: "***", medium: "**", low: "*" }[e.priority]);

/** The ward's words, with the value: HR 134>120, PAUSE 2.4 s. */
export function words(e) {
  const text = (e.text || e.code).replace(/^[*! ]+/, "");
  if (e.value === null || e.value === undefined || /[<>]/.test(text) || /\d/.test(text)) return text;
  return `${text} ${Number(e.value.toPrecision(3))} ${e.unit ?? ""}`.trim();
}

/** The limit that a value stands against, in words; empty where there is none. */
export function limit(e) {
  const [low, high] = e.limits ?? [null, null];
  const unit = e.unit ? ` ${e.unit}` : "";
  return [low !== null && `limit ${low}${unit}`, high !== null && `limit ${high}${unit}`].filter(Boolean).join(", ");
}

export class Store extends EventTarget {
  constructor(link) {
    super();
    this.beds = new Map();
    this.traces = new Map();
    this.ward = { name: "", unit: "" };
    this.you = { who: "", role: "viewer" };
    this.origins = {}; // of beds that this ward plays itself: simulated or replayed
    this.silent = false;
    this.flow = null;
    this.offset = 0; // the server's clock minus ours, ms
    link.addEventListener("item", ({ item }) => this._take(item));
    link.addEventListener("waves", ({ data }) => this._waves(data));
  }

  /** The server's time, ms since 1970. */
  now() { return Date.now() + this.offset; }

  bed(name) {
    let bed = this.beds.get(name);
    if (!bed) {
      bed = new Bed(name);
      this.beds.set(name, bed);
      this._tell("beds");
    }
    return bed;
  }

  may(role) {
    const roles = ["viewer", "operator", "engineer"];
    return roles.indexOf(this.you.role) >= roles.indexOf(role);
  }

  _take(item) {
    const handle = this[`_${item.k}`];
    if (handle) handle.call(this, item);
  }

  _snapshot(item) {
    Object.assign(this, { ward: item.ward, you: item.you, origins: item.origins, silent: item.silent });
    this.offset = item.utc_ms - Date.now();
    const before = new Set(this.beds.keys());
    for (const told of item.beds) {
      before.delete(told.bed);
      const bed = this.bed(told.bed);
      const began = new Map([...bed.alerts.values()].map((e) => [e.alert_id, since(e)]));
      bed.alerts = new Map(told.alerts.map((e) => [e.alert_id, { ...e, began: began.get(e.alert_id) }]));
      bed.off = told.off;
      if (told.signals) this._signals(told.signals);
      if (told.numeric) this._numeric(told.numeric);
      if (told.status) this._status(told.status);
      if (told.window) this._window(told.window);
      bed.beats = []; // they come again where the bed is looked at
    }
    for (const gone of before) this.beds.delete(gone);
    this._tell("snapshot");
    this._tell("beds");
  }

  _alert({ e }) {
    const bed = this.bed(e.bed), before = bed.alerts.get(e.alert_id);
    bed.alerts.delete(e.alert_id);
    const kept = { ...e, began: before ? since(before) : undefined };
    if (e.state !== "inactive") bed.alerts.set(e.alert_id, kept);
    this._tell("alert", bed, kept);
  }

  _action({ a, off }) {
    const bed = this.bed(a.bed);
    bed.off = off;
    this._tell("action", bed, a);
  }

  _numeric(item) {
    const bed = this.bed(item.bed);
    bed.numeric = item;
    this._tell("numeric", bed);
  }

  _status(item) {
    const bed = this.bed(item.bed);
    bed.status = item;
    this._progress(bed, item);
    this._tell("status", bed);
  }

  /** Something new of a bed's signal: not merely another message about it. */
  _progress(bed, { epoch, at, age_ms }) {
    const position = `${epoch} ${at}`, first = bed.position === "";
    if (position === bed.position) return;
    bed.position = position;
    bed.heard = performance.now() - (first ? age_ms : 0);
  }

  _window(item) {
    const bed = this.bed(item.bed);
    bed.window = item;
    this._tell("window", bed);
  }

  _beat(item) {
    const bed = this.bed(item.bed);
    bed.beats.push(item);
    if (bed.beats.length > 120) bed.beats.shift();
    this._tell("beat", bed, item);
  }

  _signals(item) {
    const bed = this.bed(item.bed);
    if (bed.trace?.id === item.id) return;
    if (bed.trace) this.traces.delete(bed.trace.id);
    bed.trace = new Trace(item);
    this.traces.set(item.id, bed.trace);
    this._tell("signals", bed);
  }

  _gateway({ silent }) {
    this.silent = silent;
    this._tell("gateway");
  }

  _flow(item) {
    this.flow = item;
    this.offset = item.utc_ms - Date.now();
    this._tell("flow");
  }

  _waves(buffer) {
    const view = new DataView(buffer), now = performance.now();
    let at = 0;
    while (at + HEAD <= buffer.byteLength) {
      const id = view.getUint16(at, true), leads = view.getUint8(at + 2), every = view.getUint8(at + 3) === 1;
      const n = view.getUint16(at + 4, true), first = view.getFloat64(at + 8, true);
      const data = new Int16Array(buffer, at + HEAD, leads * n);
      this.traces.get(id)?.write(first, n, every, data, now);
      at += HEAD + 2 * leads * n;
    }
  }

  _tell(type, bed = null, detail = null) {
    this.dispatchEvent(Object.assign(new Event("change"), { what: type, bed, detail }));
  }
}
