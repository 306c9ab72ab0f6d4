// How it looks on this screen: sweep speed, gain, the size of a millimetre, motion, and who acts.

import { el } from "./dom.js";
import { who } from "./acting.js";
import { scale } from "./scale.js";

export function setup(app) {
  const choice = (label, key, options) => el("label", {}, label,
    el("select", { onchange: ({ target }) => scale.set({ [key]: Number(target.value) }) },
      options.map(([value, text]) => el("option", { value, selected: scale[key] === value }, text))));
  const bar = el("div.ruler", { role: "img", "aria-label": "A bar that should be 50 mm long" });
  const size = el("input", { type: "range", min: "2", max: "12", step: "0.02", value: scale.pxPerMm });
  const show = () => { bar.style.width = `${50 * size.value}px`; };
  size.addEventListener("input", show);
  size.addEventListener("change", () => scale.set({ pxPerMm: Number(size.value), calibrated: true }));
  show();
  const dialog = el("dialog.setup", { "aria-labelledby": "setup-title" },
    el("h2", { id: "setup-title" }, "Display"),
    choice("Sweep", "mmPerS", [[12.5, "12.5 mm/s"], [25, "25 mm/s"], [50, "50 mm/s"]]),
    choice("Gain", "gain", [[0, "10 mm/mV, less where there is no room"], [2.5, "2.5 mm/mV"], [5, "5 mm/mV"], [10, "10 mm/mV"], [20, "20 mm/mV"]]),
    el("label", {}, "Size: hold a ruler to the bar until it is 50 mm long", size), bar,
    el("label.check", {}, el("input", { type: "checkbox", checked: scale.still, onchange: ({ target }) => scale.set({ still: target.checked }) }), "No flashing"),
    app.store.you.who === "station" ? el("label", {}, "Your name, for the journal", el("input", { type: "text", maxlength: 40, value: who.name, onchange: ({ target }) => { who.name = target.value; } })) : el("p", {}, `You are ${app.store.you.who}, ${app.store.you.role}.`),
    el("form", { method: "dialog" }, el("button", {}, "Close")));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
