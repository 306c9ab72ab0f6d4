// How large a millimetre and a millivolt are on this screen. CSS says 96 px to the inch, which no screen keeps: sizes are
// nominal until somebody has held a ruler to it.

const NOMINAL = 96 / 25.4;

const kept = () => {
  try { return JSON.parse(localStorage.getItem("wardbeat.scale")) ?? {}; } catch { return {}; }
};

const clamp = (value, low, high, otherwise) =>
  Number.isFinite(value) ? Math.min(high, Math.max(low, value)) : otherwise;

export const scale = {
  pxPerMm: clamp(kept().pxPerMm, 1, 20, NOMINAL),
  calibrated: Boolean(kept().calibrated),
  mmPerS: [12.5, 25, 50].includes(kept().mmPerS) ? kept().mmPerS : 25,
  gain: [2.5, 5, 10, 20].includes(kept().gain) ? kept().gain : 0, // mm per mV; 0: 10, or 5 where there is no room
  still: Boolean(kept().still), // no motion but the sweep

  set(changes) {
    Object.assign(scale, changes);
    const { pxPerMm, calibrated, mmPerS, gain, still } = scale;
    try { localStorage.setItem("wardbeat.scale", JSON.stringify({ pxPerMm, calibrated, mmPerS, gain, still })); } catch { /* private */ }
    document.documentElement.toggleAttribute("data-still", still);
    dispatchEvent(new Event("scale"));
  },

  /** mm per mV where a lead has `height` css px */
  gainFor(height) {
    if (scale.gain) return scale.gain;
    return [10, 5, 2.5].find((mm) => height >= 1.85 * mm * scale.pxPerMm) ?? 2.5;
  },

  get words() {
    return `${scale.mmPerS} mm/s${scale.calibrated ? "" : " nominal"}`;
  },
};
document.documentElement.toggleAttribute("data-still", scale.still);
