// ECG paper behind a trace, and strips: a stretch of signal that does not move.

import { scale } from "./scale.js";

/** The grid of 1 and 5 mm (0.04 and 0.2 s, 0.1 and 0.5 mV at 25 mm/s and 10 mm/mV), from `left` css px on. */
export function grid(canvas, left = 0, dark = true) {
  const dpr = Math.min(2, devicePixelRatio || 1), context = canvas.getContext("2d");
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * dpr));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * dpr));
  const mm = scale.pxPerMm * dpr;
  for (const [every, colour] of [[1, dark ? "#15212b" : "#fbe3e3"], [5, dark ? "#21384a" : "#f2b8b8"]]) {
    context.strokeStyle = colour;
    context.lineWidth = 1;
    context.beginPath();
    for (let x = left * dpr; x <= canvas.width; x += every * mm) { context.moveTo(Math.round(x) + 0.5, 0); context.lineTo(Math.round(x) + 0.5, canvas.height); }
    for (let y = 0; y <= canvas.height; y += every * mm) { context.moveTo(left * dpr, Math.round(y) + 0.5); context.lineTo(canvas.width, Math.round(y) + 0.5); }
    context.stroke();
  }
}

/** Draws a strip: {rate, first, signals, samples (rows of int16, -32768 where missing), decided, beats, labels}. */
export function strip(canvas, about) {
  grid(canvas, 0, true);
  const dpr = Math.min(2, devicePixelRatio || 1), context = canvas.getContext("2d");
  const rows = about.signals.flatMap((signal, i) => (signal.kind === "ecg" ? [i] : [])).slice(0, 3);
  const n = about.samples[0]?.length ?? 0, step = canvas.width / Math.max(1, n), lane = canvas.height / Math.max(1, rows.length);
  rows.forEach((row, at) => {
    const { gain, baseline, name } = about.signals[row], zero = lane * (at + 0.58), pxPerMv = Math.min(10 * scale.pxPerMm * dpr, lane / 2.2);
    context.strokeStyle = "#5df08a";
    context.lineWidth = 1.2 * dpr;
    context.beginPath();
    let pen = false;
    about.samples[row].forEach((x, i) => {
      if (x === -32768) { pen = false; return; }
      const y = zero - ((x - baseline) / gain) * pxPerMv;
      if (pen) context.lineTo(i * step, y); else context.moveTo(i * step, y);
      pen = true;
    });
    context.stroke();
    context.fillStyle = "#b8c7d4";
    context.font = `${12 * dpr}px system-ui, sans-serif`;
    context.fillText(name, 4 * dpr, lane * at + 14 * dpr);
  });
  context.textAlign = "center";
  (about.beats ?? []).forEach((sample, i) => {
    context.fillStyle = about.labels[i] === "V" ? "#ff9d5c" : "#b8c7d4";
    context.fillText(about.labels[i] ?? "", (sample - about.first) * step, canvas.height - 4 * dpr);
  });
  const x = (about.decided - about.first) * step;
  context.strokeStyle = "#ffd54a";
  context.setLineDash([4 * dpr, 4 * dpr]);
  context.beginPath();
  context.moveTo(x, 0);
  context.lineTo(x, canvas.height);
  context.stroke();
  context.setLineDash([]);
}
