// The way of the data with live figures on it, and, in simulation, buttons that make things happen to it.

import { el, natural, say, svg } from "./dom.js";
import { toast } from "./acting.js";
import { plotter } from "./trend.js";

const BOXES = [
  ["sources", 20, 60, "Sources"], ["ingest", 200, 60, "Ingest"], ["periods", 380, 60, "Rings, periods"], ["batcher", 560, 60, "Batcher"],
  ["model", 740, 60, "ECG-MoE"], ["alarms", 560, 210, "Alarms"], ["gateway", 380, 210, "Gateway, journal"], ["out", 200, 210, "Published"], ["clients", 20, 210, "Browsers, buses"],
];
const ARROWS = [["sources", "ingest"], ["ingest", "periods"], ["periods", "batcher"], ["batcher", "model"], ["model", "alarms"], ["periods", "alarms"], ["alarms", "gateway"], ["gateway", "out"], ["out", "clients"]];
const WIDE = 150, TALL = 92;
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3], [1, 2], [10, 4], [4, 4], [12, 2]];
const LINES = ["#5df08a", "#5cd1f5", "#ffd54a", "#ff9d5c", "#e6a5ff", "#ff7a86", "#9fb8ff", "#d9e2ea"];

export class Engineering {
  constructor(app) {
    this.app = app;
    this.lines = {};
    this.picture = svg("svg.way", { viewBox: "0 40 910 282", role: "img", "aria-label": "The way of the data; its figures are in the tables below" },
      svg("defs", {}, svg("marker", { id: "tip", viewBox: "0 0 8 8", refX: "7", refY: "4", markerWidth: "7", markerHeight: "7", orient: "auto-start-reverse" }, svg("path", { d: "M0 0 8 4 0 8z", fill: "#7f95a8" }))),
      ...ARROWS.map(([a, b]) => this._arrow(a, b)), ...BOXES.map((box) => this._box(...box)));
    this.cdf = el("div.plot");
    this.stages = el("tbody");
    this.loss = el("tbody");
    this.bridges = el("tbody");
    this.clients = el("tbody");
    const table = (title, heads, body) => el("section", {}, el("h2", {}, title), el("table", {}, el("thead", {}, el("tr", {}, ...heads.map((h) => el("th", { scope: "col" }, h)))), body));
    this.node = el("div.engineering", {},
      el("h1", {}, "Engineering"), this.picture, this._happen(),
      el("section", {}, el("h2", {}, "Delay by stage: share of messages that took no longer (ms)"), this.cdf),
      el("div.columns", {}, table("Delays, ms", ["Stage", "p50", "p90", "p99", "max"], this.stages), table("Loss by cause", ["Cause", "Samples, packets or items"], this.loss),
        table("Bridges", ["Bridge", "Count"], this.bridges), table("Browsers", ["Who", "Role", "Waves dropped", "Waiting bytes"], this.clients)));
  }

  enter() { this._draw(); }
  leave() { this.plot?.destroy(); this.plot = null; }
  tick() {}
  change({ what }) { if (what === "flow") this._draw(); else if (what === "snapshot" || what === "beds") this._again(); }

  /** The buttons anew, when it is known who is here and which beds there are. */
  _again() {
    const before = this.happen;
    before.replaceWith(this._happen());
  }

  _box(name, x, y, title) {
    this.lines[name] = [0, 1, 2].map((i) => svg("text", { x: x + 12, y: y + 44 + 17 * i }));
    return svg("g.box", {}, svg("rect", { x, y, width: WIDE, height: TALL, rx: 8 }), svg("text.title", { x: x + 12, y: y + 22 }, title), ...this.lines[name]);
  }

  _arrow(a, b) {
    const at = (name) => BOXES.find((box) => box[0] === name), [, ax, ay] = at(a), [, bx, by] = at(b);
    const line = ay === by ? [ax < bx ? ax + WIDE : ax, ay + TALL / 2, ax < bx ? bx : bx + WIDE, by + TALL / 2]
      : [ax + WIDE / 2, ay + TALL, a === "model" ? bx + WIDE : bx + 20, a === "model" ? by + TALL / 2 : by];
    return svg("line.arrow", { x1: line[0], y1: line[1], x2: line[2], y2: line[3], "marker-end": "url(#tip)" });
  }

  _happen() {
    const { store, link } = this.app, allowed = store.may("engineer");
    const bed = el("select", { "aria-label": "Bed" }, [...store.beds.keys()].sort(natural).map((name) => el("option", { value: name }, name)));
    const seconds = el("input", { type: "number", min: 1, max: 600, value: 20, "aria-label": "Seconds" });
    const ask = async (message, said) => { const { ok, text } = await link.ask(message); toast(ok ? said : `refused: ${text}`, ok); };
    const button = (text, message) => el("button", { type: "button", disabled: !allowed, onclick: () => ask({ for_s: Number(seconds.value), ...message() }, `${text}: done`) }, text);
    const fault = (what, more) => () => ({ t: "fault", what, bed: bed.value, ...more });
    const kill = (role) => el("button.danger", { type: "button", disabled: !allowed, onclick: () => ask({ t: "kill", role }, `${role} killed`) }, `Kill the ${role}`);
    this.happen = el("section.happen", { "aria-label": "Make things happen", hidden: !store.simulation },
      el("h2", {}, "Make something happen ", el("small", {}, "simulated patients only")),
      el("div.row", {}, el("label", {}, "Bed ", bed), el("label", {}, "for ", seconds, " s"),
        button("VF", fault("rhythm", { rhythm: "vf" })), button("VT", fault("rhythm", { rhythm: "vt" })), button("Asystole", fault("rhythm", { rhythm: "asystole" })), button("AF", fault("rhythm", { rhythm: "af" })),
        button("Pull a lead", fault("lead_off", { lead: 0 })), button("Pull all leads", fault("lead_off")), button("Noise", fault("rhythm", { rhythm: "noise" })),
        button("Cut the network", () => ({ t: "fault", what: "loss" }))),
      el("div.row", {}, kill("worker"), el("button.danger", { type: "button", disabled: !allowed, onclick: () => ask({ t: "kill", role: this._shard() }, "shard killed") }, "Kill a shard"), kill("gateway")));
    return this.happen;
  }

  _shard() {
    const bed = [...this.app.store.beds.values()].find((b) => b.status);
    return `shard.${bed?.status.shard ?? "a"}`;
  }

  async _draw() {
    const { flow } = this.app.store;
    if (!flow) return;
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
    put("clients", `${flow.clients.length} browsers`, `${new Set(bridges.map(([what]) => what.split(".")[1])).size} bridges`, `server ${(100 * flow.server_cpu).toFixed(1)} % of a core`);
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
      const points = new Map(stages[name].map((ms, i) => [Math.max(0.05, ms), quantiles[i]]));
      const sorted = [...points].sort((a, b) => a[0] - b[0]);
      return [sorted.map(([ms]) => ms), sorted.map(([, q]) => q)];
    }));
    if (this.plot && this.names === names.join()) { this.plot.setData(data); return; }
    this.plot?.destroy();
    this.cdf.replaceChildren();
    this.names = names.join();
    const axis = { stroke: "#b8c7d4", grid: { stroke: "#1d2a35" }, ticks: { stroke: "#1d2a35" } };
    this.plot = new uPlot({
      width: this.cdf.clientWidth || 800, height: 240, cursor: { show: false }, legend: { show: false },
      scales: { x: { time: false, distr: 3 }, y: { range: [0, 100] } },
      axes: [{ ...axis, values: (u, splits) => splits.map((v) => (v === null ? "" : `${v} ms`)) }, { ...axis, values: (u, splits) => splits.map((v) => `${v} %`) }],
      series: [{}, ...names.map((label, i) => ({ label, stroke: LINES[i % LINES.length], dash: DASHES[i % DASHES.length], width: 1.8, spanGaps: true, points: { show: false } }))],
    }, data, this.cdf);
    this.cdf.append(el("p.legend", {}, ...names.map((name, i) => {
      const box = el("i");
      box.style.background = LINES[i % LINES.length];
      return el("span", {}, box, name.replace(">", " to "));
    })));
  }
}
