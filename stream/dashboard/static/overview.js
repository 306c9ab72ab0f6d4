// All beds at a glance: tiles that sweep, and beside them the ward's alarms, the gravest first.

import { age, el, natural, put, say } from "./dom.js";
import { acknowledge } from "./acting.js";
import { graver, limit, mark, since, words } from "./store.js";
import { scale } from "./scale.js";
import { Tile } from "./tile.js";

const MOST_TILES = 64;
const LISTED = 40;

export class Overview {
  constructor(app) {
    this.app = app;
    this.page = 0;
    this.tiles = [];
    this.grid = el("div.tiles", { role: "group", "aria-label": "Beds" });
    this.rail = el("ol.rail");
    this.pager = el("div.pager");
    this.none = el("p.none", {}, "No bed sends anything yet.");
    this.node = el("div.overview", {},
      el("h1.unseen", {}, "Overview"),
      el("section.beds", { "aria-label": "All beds", tabindex: "0" }, this.none, this.grid, this.pager),
      el("aside", { "aria-label": "Alarms that stand", tabindex: "0" }, el("h2", {}, "Alarms"), this.rail, el("p.scale-note", {})));
    this.note = this.node.querySelector(".scale-note");
    Object.assign(this, { _took: 16, _turn: 0, _groups: 1, _judged: 0 });
  }

  enter() {
    this._build();
    this.onResize = () => this._layout();
    addEventListener("resize", this.onResize);
    addEventListener("scale", this.onResize);
    this.observer = new ResizeObserver(this.onResize);
    this.observer.observe(this.grid);
  }

  leave() {
    removeEventListener("resize", this.onResize);
    removeEventListener("scale", this.onResize);
    this.observer.disconnect();
    this.app.link.send({ t: "view", beds: [], every: false });
  }

  change({ what }) {
    if (what === "beds") this._build();
    else if (what === "snapshot") this._view();
  }

  /** Four times a second. */
  tick(now) {
    for (const tile of this.tiles) tile.update(now);
    this._list();
  }

  /** All tiles, or, where a frame takes too long for that, every second to fourth in turn. */
  frame(now) {
    const took = Math.min(200, now - (this._last ?? now));
    this._last = now;
    this._took += (took - this._took) * 0.05;
    this._turn = (this._turn + 1) % this._groups;
    for (let i = this._turn; i < this.tiles.length; i += this._groups) this.tiles[i].frame(now);
    if (now < this._judged) return;
    this._judged = now + 1000;
    if (this._took > 24 && this._groups < 4) this._groups += 1;
    else if (this._took < 18 && this._groups > 1) this._groups -= 1;
  }

  _build() {
    const { store } = this.app;
    const all = [...store.beds.values()].sort((a, b) => natural(a.name, b.name));
    const pages = Math.max(1, Math.ceil(all.length / MOST_TILES));
    this.page = Math.min(this.page, pages - 1);
    const beds = all.slice(this.page * MOST_TILES, (this.page + 1) * MOST_TILES);
    const known = new Map(this.tiles.map((tile) => [tile.bed, tile]));
    const tiles = beds.map((bed) => known.get(bed) ?? new Tile(this.app, bed));
    if (tiles.length !== this.tiles.length || tiles.some((tile, i) => tile !== this.tiles[i])) {
      this.tiles = tiles;
      this.grid.replaceChildren(...tiles.map((tile) => tile.node));
    }
    put(this.none, "hidden", beds.length > 0);
    this.pager.replaceChildren(...(pages < 2 ? [] : Array.from({ length: pages }, (_, i) =>
      el("button", { type: "button", "aria-pressed": String(i === this.page), onclick: () => { this.page = i; this._build(); } },
        `${i * MOST_TILES + 1} to ${Math.min(all.length, (i + 1) * MOST_TILES)}`))));
    this._layout();
    this._view();
  }

  _view() {
    this.app.link.send({ t: "view", beds: this.tiles.map((tile) => tile.bed.name), every: false });
  }

  /** As many columns as make tiles about twice as wide as high, and all of them fit where they can be read. */
  _layout() {
    const n = this.tiles.length, { clientWidth: width } = this.grid, height = this.grid.parentElement.clientHeight - 4;
    if (!n || !width || (this._width === width && this._height === height && this._n === n && this._scale === scale.mmPerS + scale.gain + scale.pxPerMm)) return;
    Object.assign(this, { _width: width, _height: height, _n: n, _scale: scale.mmPerS + scale.gain + scale.pxPerMm });
    let best = 1, worst = Infinity;
    for (let columns = 1; columns <= Math.min(n, 10); columns++) {
      const rows = Math.ceil(n / columns), ratio = width / columns / (height / rows);
      const fit = Math.abs(Math.log(ratio / 2.4)) + (columns * rows - n) / n;
      if (fit < worst) { worst = fit; best = columns; }
    }
    const tall = Math.max(112, Math.floor(height / Math.ceil(n / best)) - 4);
    this.grid.style.setProperty("--columns", best);
    this.grid.style.setProperty("--tall", `${tall}px`);
    put(this.grid, "data-size", tall < 150 ? "small" : tall < 240 ? "medium" : "large");
    for (const tile of this.tiles) tile.layout();
    say(this.note, `${scale.words}, ${new Set(this.tiles.map((tile) => tile.sweep.gain)).size === 1 ? `${this.tiles[0].sweep.gain} mm/mV` : ""}`);
  }

  _list() {
    const { store } = this.app, now = store.now();
    const every = [...store.beds.values()].flatMap((bed) => bed.standing).sort(graver).slice(0, LISTED);
    const rows = new Map([...this.rail.children].map((row) => [row.dataset.id, row]));
    every.forEach((e, at) => {
      let row = rows.get(e.alert_id);
      if (!row) {
        row = el("li", { dataset: { id: e.alert_id } },
          el("a", { href: `#/bed/${encodeURIComponent(e.bed)}` }, e.bed), el("span.text"), el("span.since"),
          el("button.ack", { type: "button", onclick: () => acknowledge(this.app, e.bed, e.alert_id), "aria-label": `Ack ${e.bed} ${words(e)}` }, "Ack"));
      }
      rows.delete(e.alert_id);
      say(row.children[1], `${mark(e)} ${words(e)}${e.state === "latched" ? " (over)" : ""}`);
      say(row.children[2], `${age((now - since(e)) / 1000)}${e.ack ? `, ✓ ${e.ack.by ?? ""}` : ""}`);
      put(row, "title", limit(e));
      put(row, "data-priority", e.kind === "technical" ? "technical" : e.priority);
      put(row, "data-quiet", Boolean(e.ack));
      put(row.children[3], "hidden", Boolean(e.ack) || !store.may("operator"));
      if (this.rail.children[at] !== row) this.rail.insertBefore(row, this.rail.children[at] ?? null);
    });
    for (const row of rows.values()) row.remove();
  }
}
