// The samples of one bed as they come: a ring per signal, in its unit, NaN where there is none.

const KEEP_S = 24;
const MISSING = -32768;
const FEW = 2;

export class Trace {
  /** about: {id, bed, epoch, rate, signals} as the server tells it */
  constructor(about) {
    Object.assign(this, about);
    this.size = 1 << Math.ceil(Math.log2(KEEP_S * this.rate));
    this.rings = this.signals.map(() => new Float32Array(this.size).fill(NaN));
    this.ecg = this.signals.flatMap((signal, i) => (signal.kind === "ecg" ? [i] : []));
    this.few = this.ecg.length ? this.ecg.slice(0, FEW) : this.signals.map((_, i) => i);
    this.head = -1; // index of the sample after the newest
    this.tail = 0;
    this.heard = 0; // performance.now() of the newest
    this.tempo = 1;
    this._since = null;
  }

  /** data: Int16Array of one signal after the other, n samples each */
  write(first, n, every, data, now) {
    const rows = every ? this.signals.map((_, i) => i) : this.few;
    if (this.head < 0) { this.head = this.tail = first; }
    if (first > this.head) { // a gap is a gap
      const from = Math.max(this.head, first - this.size);
      for (const ring of this.rings) for (let s = from; s < first; s++) ring[s & (this.size - 1)] = NaN;
      this.head = first;
    }
    const skip = Math.max(0, this.head - first);
    rows.forEach((row, at) => {
      const ring = this.rings[row], { gain, baseline } = this.signals[row];
      for (let i = skip; i < n; i++) {
        const x = data[at * n + i];
        ring[(first + i) & (this.size - 1)] = x === MISSING ? NaN : (x - baseline) / gain;
      }
    });
    if (skip < n && !every) {
      for (let row = 0; row < this.rings.length; row++) {
        if (!rows.includes(row)) for (let i = skip; i < n; i++) this.rings[row][(first + i) & (this.size - 1)] = NaN;
      }
    }
    if (skip < n) {
      this.head = first + n;
      this.tail = Math.max(this.tail, this.head - this.size);
      this.heard = now;
      this._pace(now);
    }
  }

  at(row, sample) {
    return sample < this.tail || sample >= this.head ? NaN : this.rings[row][sample & (this.size - 1)];
  }

  /** How fast samples come beside life: 1, or the speed of a replay. */
  _pace(now) {
    if (!this._since || now - this._since.now > 6000) this._since = { now, head: this.head };
    const seconds = (now - this._since.now) / 1000;
    if (seconds > 2) {
      const tempo = (this.head - this._since.head) / this.rate / seconds;
      if (tempo > 0.2 && tempo < 100) this.tempo = Math.abs(tempo - 1) < 0.1 ? 1 : tempo;
    }
  }
}
