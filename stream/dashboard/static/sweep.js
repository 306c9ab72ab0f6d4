// A sweeping trace: the newest samples are drawn behind an erase bar that runs over the canvas, as on a monitor. A sample
// has its place by its index alone, so what is drawn is what came; only new columns are drawn.

import { scale } from "./scale.js";

const DELAY_S = 0.3; // of what is shown behind what has come: what a network may jitter
const BAR_MM = 5;
const LOOK_BACK_S = 12;

export class Sweep {
  /** rows: which signals; `room`: css px kept free at the top for labels; colours by kind */
  constructor(canvas, { label = false, room = 0, colour = "#5df08a" } = {}) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: true });
    this.colour = colour;
    this.label = label;
    this.room = room;
    this.trace = null;
    this.rows = [];
    this.beats = [];
    this.play = NaN;
    this.drawn = NaN;
  }

  /** Shows these signals of a trace from here on. */
  show(trace, rows) {
    this.trace = trace;
    this.rows = rows;
    this.beats = [];
    this.reset();
  }

  /** The canvas, and where everything is in it, from its css size. */
  reset() {
    const { canvas } = this, dpr = Math.min(2, devicePixelRatio || 1);
    const width = Math.max(1, Math.round(canvas.clientWidth * dpr)), height = Math.max(1, Math.round(canvas.clientHeight * dpr));
    if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
    this.dpr = dpr;
    this.width = width;
    this.height = height;
    const n = Math.max(1, this.rows.length), lane = (height - this.room * dpr) / n;
    this.gain = scale.gainFor(lane / dpr);
    this.pxPerS = scale.mmPerS * scale.pxPerMm * dpr;
    this.pxPerMv = this.gain * scale.pxPerMm * dpr;
    this.lanes = this.rows.map((_, i) => ({ top: this.room * dpr + i * lane, zero: this.room * dpr + (i + 0.58) * lane, height: lane }));
    this.pulse = Math.round(Math.min(7 * scale.pxPerMm, canvas.clientWidth * 0.12) * dpr); // left free for the calibration pulse
    this.drawn = NaN;
    this.play = NaN;
  }

  /** Where a sample is, in canvas px from the left: by its index alone. */
  x(sample) {
    const span = this.width - this.pulse;
    return this.pulse + ((sample / this.trace.rate) * this.pxPerS) % span;
  }

  y(lane, value, signal) {
    if (signal.kind === "ecg") return this.lanes[lane].zero - value * this.pxPerMv;
    const { low, high } = this._range(lane);
    return this.lanes[lane].top + this.lanes[lane].height * (0.92 - 0.84 * (value - low) / Math.max(high - low, 1e-9));
  }

  /** Seconds that fit in. */
  get span_s() { return (this.width - this.pulse) / this.pxPerS; }

  /** Draws what is due; `now` in ms. Returns whether anything was. */
  frame(now) {
    const { trace } = this;
    if (!trace || trace.head < 0 || !this.rows.length || this.width <= this.pulse + 8) return false;
    const target = trace.head - DELAY_S * trace.rate * trace.tempo;
    const dt = Math.min(0.25, (now - (this.at ?? now)) / 1000);
    this.at = now;
    if (Number.isNaN(this.play) || Math.abs(target - this.play) > 1.5 * trace.rate * Math.max(1, trace.tempo)) {
      this.play = Math.min(target, trace.head);
      this.drawn = NaN;
    } else {
      this.play += dt * trace.rate * trace.tempo + (target - this.play) * Math.min(1, dt * 0.8);
      this.play = Math.min(this.play, trace.head);
    }
    const end = Math.floor(this.play); // samples before it are drawn
    if (Number.isNaN(this.drawn)) {
      this.context.clearRect(0, 0, this.width, this.height);
      this.rows.forEach((row, lane) => this._settle(row, lane));
      this._base();
      this.drawn = Math.max(trace.tail, end - Math.floor((this.span_s - BAR_MM / scale.mmPerS) * trace.rate), end - LOOK_BACK_S * trace.rate);
    }
    if (end <= this.drawn) return false;
    if (this.x(end) < this.x(this.drawn) && this.rows.some((row, lane) => this._settle(row, lane))) this._base();
    this._erase(this.drawn, end);
    this.rows.forEach((row, lane) => this._draw(row, lane, this.drawn, end));
    for (const beat of this.beats) if (beat.at >= this.drawn && beat.at < end) this._mark(beat);
    this.drawn = end;
    return true;
  }

  /** Marks a beat that was judged: at once where its place is drawn already. */
  mark(beat) {
    this.beats.push(beat);
    if (this.beats.length > 60) this.beats.shift();
    if (this.trace && beat.at < this.drawn && this.visible(beat.at)) this._mark(beat);
  }

  visible(sample) {
    return sample < this.drawn && sample > this.drawn - (this.span_s - BAR_MM / scale.mmPerS - 0.1) * this.trace.rate;
  }

  clear() {
    this.context.clearRect(0, 0, this.width, this.height);
    this.drawn = this.play = NaN;
  }

  _erase(from, end) {
    const bar = BAR_MM * scale.pxPerMm * this.dpr, a = this.x(from), width = (end - from) / this.trace.rate * this.pxPerS;
    this._clear(Math.floor(a) + 1, Math.ceil(width + bar));
  }

  _clear(x, width) {
    const span = this.width - this.pulse;
    if (width >= span) { this.context.clearRect(this.pulse, 0, span, this.height); return; }
    const first = Math.min(width, this.width - x);
    if (first > 0) this.context.clearRect(x, 0, first, this.height);
    if (width > first) this.context.clearRect(this.pulse, 0, width - Math.max(first, 0), this.height);
  }

  _draw(row, lane, from, end) {
    const { context, trace } = this, signal = trace.signals[row];
    const step = this.pxPerS / trace.rate, span = this.width - this.pulse;
    context.strokeStyle = signal.kind === "ecg" ? this.colour : signal.kind === "pleth" ? "#5cc8ff" : signal.kind === "abp" ? "#ff8a80" : "#e6d36a";
    context.lineWidth = 1.4 * this.dpr;
    context.lineJoin = "round";
    context.save();
    context.beginPath();
    context.rect(this.pulse, this.lanes[lane].top, span, this.lanes[lane].height);
    context.clip();
    context.beginPath();
    let pen = false, last = -1;
    for (let sample = Math.max(from - 1, trace.tail); sample < end; sample++) {
      const value = trace.at(row, sample);
      if (Number.isNaN(value)) { pen = false; continue; }
      const x = this.x(sample), y = this.y(lane, value, signal);
      if (pen && x < last) { // round the edge: the line goes on at the other side
        context.lineTo(last + step, y);
        context.moveTo(x - step, this.y(lane, trace.at(row, sample - 1), signal));
      }
      if (pen) context.lineTo(x, y);
      else context.moveTo(x, y);
      if (!pen && (sample + 1 >= trace.head || Number.isNaN(trace.at(row, sample + 1)))) context.lineTo(x + 0.5, y);
      pen = true;
      last = x;
    }
    context.stroke();
    context.restore();
  }

  _mark(beat) {
    if (!this.label) return;
    const { context } = this, x = this.x(beat.at), size = 13 * this.dpr;
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.fillStyle = COLOURS[beat.label] ?? "#9aa7b4";
    context.fillText(beat.label, x, this.room * this.dpr - 4 * this.dpr);
  }

  /** Puts a lane's zero where the last seconds fit, at the left edge only, and only where they do not; whether it moved. */
  _settle(row, lane) {
    const { trace } = this, { top, height, zero } = this.lanes[lane];
    if (trace.signals[row].kind !== "ecg") return false;
    const { low, high } = this._seen(row, 4), margin = 0.04 * height;
    if (low > high) return false;
    if (zero - high * this.pxPerMv >= top + margin && zero - low * this.pxPerMv <= top + height - margin && !Number.isNaN(this.drawn)) return false;
    this.lanes[lane].zero = top + Math.min(0.8, Math.max(0.2, 0.5 + (high + low) / 2 * this.pxPerMv / height)) * height;
    return this.lanes[lane].zero !== zero;
  }

  /** The least and greatest of a signal in the last seconds. */
  _seen(row, seconds) {
    const { trace } = this;
    let low = Infinity, high = -Infinity;
    for (let s = Math.max(trace.tail, trace.head - Math.round(seconds * trace.rate)); s < trace.head; s++) {
      const value = trace.at(row, s);
      if (value < low) low = value;
      if (value > high) high = value;
    }
    return { low, high };
  }

  /** The calibration pulse: 1 mV high, 5 mm wide where there is room. */
  _base() {
    const { context, dpr } = this;
    context.clearRect(0, 0, this.pulse, this.height);
    context.strokeStyle = "#8fa3b5";
    context.lineWidth = dpr;
    this.rows.forEach((row, lane) => {
      if (this.trace.signals[row].kind !== "ecg") return;
      const { zero } = this.lanes[lane], a = this.pulse * 0.15, b = this.pulse * 0.85;
      context.beginPath();
      context.moveTo(0, zero);
      context.lineTo(a, zero);
      context.lineTo(a, zero - this.pxPerMv);
      context.lineTo(b, zero - this.pxPerMv);
      context.lineTo(b, zero);
      context.lineTo(this.pulse, zero);
      context.stroke();
    });
  }

  /** Of a signal that has no scale in mm: what it spans now, made to fit. */
  _range(lane) {
    const { trace } = this, row = this.rows[lane];
    this._ranges ??= new Map();
    const known = this._ranges.get(row);
    if (known && trace.head - known.head < 2 * trace.rate) return known;
    const { low, high } = this._seen(row, 6);
    const range = low <= high ? { low, high, head: trace.head } : { low: 0, high: 1, head: trace.head };
    this._ranges.set(row, range);
    return range;
  }
}

export const COLOURS = { N: "#8fe3ad", S: "#6fc3ff", V: "#ff9d5c", F: "#e6a5ff", Q: "#c2ccd6", "?": "#93a1af" };
