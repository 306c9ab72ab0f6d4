// What a screen reader says: red alarms at once, the rest when there is time.

import { mark, words } from "./store.js";

const EVERY_MS = 3000;

export class Announcer {
  constructor(store) {
    this.waiting = [];
    this.last = 0;
    store.addEventListener("change", ({ what, detail }) => {
      if (what === "alert" && detail.phase === "start" && !detail.suppressed_by) this._say(detail);
    });
    setInterval(() => this._flush(), 500);
  }

  _say(e) {
    if (e.priority === "high") document.getElementById("assertive").textContent = `${e.bed}: red alarm, ${words(e)}`;
    else this.waiting.push(`${e.bed}: ${mark(e) === "!!" ? "technical" : e.priority === "medium" ? "yellow" : "low"} alarm, ${words(e)}`);
    this.waiting = this.waiting.slice(-5);
  }

  _flush() {
    const now = performance.now();
    if (!this.waiting.length || now - this.last < EVERY_MS) return;
    this.last = now;
    document.getElementById("polite").textContent = this.waiting.splice(0).join(". ");
  }
}

/** Tones that differ by priority in number, pitch and pace; off until somebody asks for sound. */
export class Sound {
  constructor(store) {
    this.store = store;
    this.context = null;
    this.due = 0;
    setInterval(() => this._look(), 250);
  }

  get on() { return Boolean(this.context); }

  async toggle() {
    if (this.context) {
      await this.context.close();
      this.context = null;
    } else {
      this.context = new AudioContext();
      await this.context.resume();
      this._tone(880, 0, 0.12);
    }
    return this.on;
  }

  /** The gravest that may sound: not acknowledged, its bed not paused. */
  get loudest() {
    const now = this.store.now(), order = ["high", "medium", "low"];
    const standing = [...this.store.beds.values()].filter((bed) => !(bed.off && bed.off[1] > now)).flatMap((bed) => bed.standing);
    return standing.filter((e) => !e.ack && !e.inactivation.length).map((e) => order.indexOf(e.priority)).sort()[0];
  }

  _look() {
    const now = performance.now();
    if (!this.context || now < this.due) return;
    const which = this.loudest;
    if (which === undefined) return;
    const { pulses, pitch, apart, every } = PATTERNS[which];
    pulses.forEach((after) => this._tone(pitch, after * apart, apart * 0.6));
    this.due = now + every;
  }

  _tone(pitch, after, length) {
    const { context } = this, start = context.currentTime + 0.05 + after;
    const oscillator = context.createOscillator(), gain = context.createGain();
    oscillator.type = "triangle";
    oscillator.frequency.value = pitch;
    gain.gain.setValueAtTime(0, start);
    gain.gain.linearRampToValueAtTime(0.25, start + 0.02);
    gain.gain.setValueAtTime(0.25, start + length);
    gain.gain.linearRampToValueAtTime(0, start + length + 0.03);
    oscillator.connect(gain).connect(context.destination);
    oscillator.start(start);
    oscillator.stop(start + length + 0.05);
  }
}

const PATTERNS = [
  { pulses: [0, 1, 2, 4, 5, 8, 9, 10, 12, 13], pitch: 988, apart: 0.15, every: 5000 },
  { pulses: [0, 1, 2], pitch: 659, apart: 0.25, every: 10000 },
  { pulses: [0], pitch: 440, apart: 0.3, every: 20000 },
];

