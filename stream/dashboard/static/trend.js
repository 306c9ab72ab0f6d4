// The heart rate of the last hour, or eight, with the alarms on it (uPlot).

import { el } from "./dom.js";

const COLOURS = { high: "#ff5a68", medium: "#ffd54a", low: "#5cd1f5" };
let loading = null;

/** uPlot, fetched when a page first needs it. */
export function plotter() {
  loading ??= new Promise((resolve, reject) => {
    const script = el("script", { onload: () => resolve(window.uPlot), onerror: () => reject(new Error("uPlot cannot be loaded")) });
    script.src = trusted("/static/vendor/uPlot.iife.min.js");
    document.head.append(script);
  });
  return loading;
}

const policy = window.trustedTypes?.createPolicy("wardbeat", { createScriptURL: (url) => (url.startsWith("/static/vendor/") ? url : "") });
const trusted = (url) => (policy ? policy.createScriptURL(url) : url);

export class Trend {
  constructor(app, name) {
    this.app = app;
    this.name = name;
    this.hours = 1;
    this.alarms = [];
    this.box = el("div.plot");
    const choose = (hours) => el("button", { type: "button", "aria-pressed": String(hours === 1), onclick: ({ target }) => {
      this.hours = hours;
      for (const button of target.parentElement.children) button.setAttribute("aria-pressed", String(button === target));
      this.load();
    } }, `${hours} h`);
    this.node = el("div.trend", {}, el("div.choice", { role: "group", "aria-label": "Span" }, choose(1), choose(8)), this.box);
    this.due = 0;
  }

  leave() { this.plot?.destroy(); }

  async fetch() {
    const answer = await fetch(`/api/trend/${encodeURIComponent(this.name)}`).catch(() => null);
    return answer?.ok ? answer.json() : null;
  }

  tick(now) {
    if (now > this.due) this.load();
  }

  async load() {
    this.due = performance.now() + 10000;
    const [told, uPlot, alerts] = await Promise.all([this.fetch(), plotter(), fetch(`/api/alerts?bed=${encodeURIComponent(this.name)}&hours=${this.hours}`).then((a) => (a.ok ? a.json() : { alerts: [] })).catch(() => ({ alerts: [] }))]);
    if (!told || !this.box.isConnected) return;
    this.alarms = alerts.alerts.filter(({ event }) => event.kind === "physiological" && !event.suppressed_by).map(({ event, started }) => ({ at: Date.parse(started) / 1000, priority: event.priority }));
    const now = this.app.store.now() / 1000, data = [told.t, told.hr];
    const range = [now - this.hours * 3600, now];
    if (!this.plot) {
      const axis = { stroke: "#b8c7d4", grid: { stroke: "#1d2a35" }, ticks: { stroke: "#1d2a35" } };
      this.plot = new uPlot({
        width: this.box.clientWidth || 600, height: 190, legend: { show: false }, cursor: { show: false },
        scales: { x: { time: true }, y: { range: (u, low, high) => [Math.min(40, (low ?? 60) - 5), Math.max(120, (high ?? 100) + 5)] } },
        axes: [{ ...axis, values: (u, splits) => splits.map((t) => new Date(1000 * t).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })) }, { ...axis, size: 44 }],
        series: [{}, { stroke: "#5df08a", width: 1.5, spanGaps: false, points: { show: false } }],
        hooks: { draw: [(u) => this._marks(u)] },
      }, data, this.box);
    } else this.plot.setData(data, false);
    this.plot.setScale("x", { min: range[0], max: range[1] });
  }

  _marks(u) {
    const { ctx, bbox } = u;
    ctx.save();
    for (const { at, priority } of this.alarms) {
      const x = u.valToPos(at, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.fillStyle = COLOURS[priority];
      ctx.globalAlpha = 0.45;
      ctx.fillRect(x - 1, bbox.top, 2, bbox.height);
      ctx.globalAlpha = 1;
      ctx.beginPath();
      ctx.moveTo(x - 5, bbox.top);
      ctx.lineTo(x + 5, bbox.top);
      ctx.lineTo(x, bbox.top + 9);
      ctx.fill();
    }
    ctx.restore();
  }
}
