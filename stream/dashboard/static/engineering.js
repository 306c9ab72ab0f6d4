// The way of the data with live figures on it, and, where the ward plays its beds, buttons that make things happen to it.

import { el, say, svg } from "./dom.js";
import { Happen } from "./happen.js";
import { plotter } from "./trend.js";

// Of each box: its title, and its column and row in the picture, on a wide page and on a narrow one.
const BOXES = {
  sources: ["Sources", [0, 0], [0, 0]], ingest: ["Ingest", [1, 0], [1, 0]], periods: ["Rings, periods", [2, 0], [1, 1]], batcher: ["Batcher", [3, 0], [0, 1]],
  model: ["ECG-MoE", [4, 0], [0, 2]], alarms: ["Alarms", [3, 1], [1, 2]], gateway: ["Gateway, journal", [2, 1], [1, 3]], out: ["Published", [1, 1], [0, 3]], clients: ["Browsers, buses", [0, 1], [0, 4]],
};
const ARROWS = [["sources", "ingest"], ["ingest", "periods"], ["periods", "batcher"], ["batcher", "model"], ["model", "alarms"], ["periods", "alarms"], ["alarms", "gateway"], ["gateway", "out"], ["out", "clients"]];
const WIDE = 166, TALL = 92, APART = 36, NARROW_PX = 700;
const LINES = ["#5df08a", "#5cd1f5", "#ffd54a", "#ff9d5c", "#e6a5ff"];
const LEAST_MS = 0.05;
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];

/** How the i-th line is drawn: the next colour, and the next dash as well, which comes round after another number, so that
 * twenty lines differ and neighbours differ in both. */
export const look = (i) => ({ colour: LINES[i % LINES.length], dash: DASHES[i % DASHES.length] });

export class Engineering {
  constructor(app) {
    this.app = app;
    this.lines = {};
    this.picture = svg("svg.way", { role: "img", "aria-label": "The way of the data; its figures are in the tables below" });
    this.happen = new Happen(app);
    this.cdf = el("div.plot");
    this.stages = el("tbody");
    this.loss = el("tbody");
    this.bridges = el("tbody");
    this.clients = el("tbody");
    const table = (title, heads, body) => el("section", {}, el("h2", {}, title), el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", { scope: "col" }, h)))), body));
    this.node = el("div.engineering", {},
      el("h1", {}, "Engineering"), this.picture, this.happen.node,
      el("section", {}, el("h2", {}, "Delay by stage: share of messages that took no longer (ms)"), this.cdf),
      el("div.columns", {}, table("Delays, ms", ["Stage", "p50", "p90", "p99", "max"], this.stages), table("Loss by cause", ["Cause", "Samples, packets or items"], this.loss),
        table("Bridges", ["Bridge", "Count"], this.bridges), table("Browsers", ["Who", "Role", "Waves dropped", "Waiting bytes"], this.clients)));
  }

  enter() {
    this.onResize = () => this._layout();
    addEventListener("resize", this.onResize);
    this._layout();
    this.happen.show();
  }

  leave() {
    removeEventListener("resize", this.onResize);
    this.plot?.destroy();
    this.plot = null;
  }

  tick() {}

  change({ what }) {
    if (what === "flow") this._draw();
    if (what === "flow" || what === "snapshot" || what === "beds") this.happen.show();
  }

  /** The picture and the plot for the page's width. */
  _layout() {
    const width = this.node.clientWidth, narrow = width < NARROW_PX;
    if (this.narrow !== narrow) {
      this.narrow = narrow;
      const place = Object.fromEntries(Object.entries(BOXES).map(([name, [, wide, slim]]) => {
        const [column, row] = narrow ? slim : wide;
        return [name, [2 + column * (WIDE + APART), 2 + row * (TALL + (narrow ? APART : 50))]];
      }));
      const right = Math.max(...Object.values(place).map(([x]) => x)) + WIDE + 2, foot = Math.max(...Object.values(place).map(([, y]) => y)) + TALL + 2;
      this.picture.setAttribute("viewBox", `0 0 ${right} ${foot}`);
      this.picture.replaceChildren(
        svg("defs", {}, svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: "7", refY: "4", markerWidth: "7", markerHeight: "7", orient: "auto-start-reverse" }, svg("path", { d: "M0 0 8 4 0 8z", fill: "#7f95a8" }))),
        ...ARROWS.map(([a, b]) => this._arrow(place[a], place[b])), ...Object.entries(place).map(([name, at]) => this._box(name, ...at)));
    }
    this.plot?.setSize({ width: this.cdf.clientWidth, height: this.plot.height });
    this._draw();
  }

  _box(name, x, y) {
    this.lines[name] = [0, 1, 2].map((i) => svg("text", { x: x + 12, y: y + 44 + 17 * i }));
    return svg("g.box", {}, svg("rect", { x, y, width: WIDE, height: TALL, rx: 8 }), svg("text.title", { x: x + 12, y: y + 22 }, BOXES[name][0]), ...this.lines[name]);
  }

  /** From a box to the next: beside it, below it, or down and across. */
  _arrow([ax, ay], [bx, by]) {
    const on = bx > ax;
    const [x1, y1, x2, y2] = ay === by ? [on ? ax + WIDE : ax, ay + TALL / 2, on ? bx : bx + WIDE, by + TALL / 2]
      : ax === bx ? [ax + WIDE / 2, ay + TALL, bx + WIDE / 2, by]
        : [ax + WIDE / 2, ay + TALL, on ? bx + 24 : bx + WIDE, on ? by : by + TALL / 2];
    return svg("line.arrow", { x1, y1, x2, y2, "marker-end": "url(#tip)" });
  }

  async _draw() {
    const { flow } = this.app.store;
    if (!flow || !this.lines.sources) return;
    const { per_s: per, stages } = flow, p = (stage, q) => stages[stage]?.[flow.quantiles.indexOf(q)];
    const ms = (stage) => (stages[stage] ? `${p(stage, 50).toFixed(0)} / ${p(stage, 99).toFixed(0)} ms` : "-");
    const put = (name, ...texts) => texts.forEach((text, i) => say(this.lines[name][i], text));
    const beds = this.app.store.beds.size, alive = [...this.app.store.beds.values()].filter((bed) => !bed.stale(performance.now())).length;
    const lost = Object.entries(flow.loss).filter(([what]) => what === "gap").reduce((sum, [, n]) => sum + n, 0);
    put("sources", `${alive} of ${beds} beds live`, `${per.received} packets/s`, "");
    put("ingest", `${per.delivered.toFixed(0)} samples/s`, `${lost} samples missing`, "");
    put("periods", `${per.beats} beats/s`, `${per.windows} windows/s`, `found ${ms("received>detected")}`);
    put("batcher", `batch ${flow.batch.mean} mean`, `${flow.batch.max} at most`, `waits ${ms("queued>batched")}`);
    put("model", `judges ${ms("batched>judged")}`, `busy ${(100 * flow.device_busy).toFixed(0)} %`, "");
    put("alarms", `${per.alerts} events/s`, `${flow.gateway.alerts_standing ?? 0} stand`, `decided ${ms("judged>decided")}`);
    const disk = flow.latency_ms["decided>committed"];
    put("gateway", `${flow.gateway.events_committed ?? 0} on disk`, disk ? `to disk ${disk[0].toFixed(0)} / ${disk[1].toFixed(0)} ms` : "", `${flow.gateway.journal_failed ?? 0} failures`);
    put("out", `${flow.gateway.published ?? 0} messages`, `${flow.gateway.waves ?? 0} wave blocks`, `in all ${ms("received>published")}`);
    const bridges = Object.entries(flow.gateway).filter(([what]) => what.startsWith("bridge."));
    put("clients", `${flow.clients.length} browser${flow.clients.length === 1 ? "" : "s"}`, `${new Set(bridges.map(([what]) => what.split(".")[1])).size} bridges`, `server ${(100 * flow.server_cpu).toFixed(1)} % of core`);
    const rows = (body, list) => body.replaceChildren(...list.map((cells) => el("tr", {}, el("th", { scope: "row" }, cells[0]), ...cells.slice(1).map((cell) => el("td", {}, String(cell))))));
    rows(this.stages, Object.keys(stages).map((stage) => [stage.replace(">", " to "), ...[50, 90, 99, 100].map((q) => p(stage, q).toFixed(1))]));
    rows(this.loss, Object.entries(flow.loss).length ? Object.entries(flow.loss) : [["none", ""]]);
    rows(this.bridges, bridges.length ? bridges.map(([what, n]) => [what.slice(7), n]) : [["none configured", ""]]);
    rows(this.clients, flow.clients.map((c) => [c.who, c.role, c.dropped.waves, c.waiting]));
    await this._cdf(stages, flow.quantiles);
  }

  async _cdf(stages, quantiles) {
    const uPlot = await plotter(), names = Object.keys(stages);
    if (!this.cdf.isConnected || !names.length) return;
    const data = uPlot.join(names.map((name) => {
      let last = 0; // a line goes on to the right, be it ever so little: many that took the same make it stand upright
      return [stages[name].map((ms) => (last = Math.max(LEAST_MS, ms, last * 1.0001))), quantiles];
    }));
    if (this.plot && this.names === names.join()) { this.plot.setData(data); return; }
    this.plot?.destroy();
    this.cdf.replaceChildren();
    this.names = names.join();
    const axis = { stroke: "#b8c7d4", grid: { stroke: "#1d2a35" }, ticks: { stroke: "#1d2a35" } };
    this.plot = new uPlot({
      width: this.cdf.clientWidth || 800, height: 240, padding: [8, 24, 0, 0], cursor: { show: false }, legend: { show: false },
      scales: { x: { time: false, distr: 3 }, y: { range: [0, 100] } },
      axes: [{ ...axis, values: (u, splits) => splits.map((v) => (v === null ? "" : `${v} ms`)) }, { ...axis, values: (u, splits) => splits.map((v) => `${v} %`) }],
      series: [{}, ...names.map((label, i) => ({ label, stroke: look(i).colour, dash: look(i).dash, width: 1.8, spanGaps: true, points: { show: false } }))],
    }, data, this.cdf);
    this.cdf.append(el("p.legend", {}, ...names.map((name, i) => {
      const { colour, dash } = look(i);
      const line = svg("svg", { viewBox: "0 0 44 8", "aria-hidden": "true" }, svg("line", { x1: 0, y1: 4, x2: 44, y2: 4, stroke: colour, "stroke-width": 2.4, "stroke-dasharray": dash.join(" ") || null }));
      return el("span", {}, line, name.replace(">", " to "));
    })));
  }
}
