// Buttons that make things happen to a ward that plays its beds itself, so that its alarms can be watched.

import { el, natural } from "./dom.js";
import { toast } from "./acting.js";

const RHYTHMS = [["VF", "vf"], ["VT", "vt"], ["Asystole", "asystole"], ["AF", "af"], ["Noise", "noise"]];

/** Told anew with each snapshot: who is here, which beds there are and what plays on them. A choice that was made stays. */
export class Happen {
  constructor(app) {
    this.app = app;
    this.bed = el("select", { "aria-label": "Bed", onchange: () => this._offer() });
    this.seconds = el("input", { type: "number", min: 1, max: 600, value: 20, "aria-label": "Seconds" });
    this.what = el("small", {});
    this.rhythms = RHYTHMS.map(([text, rhythm]) => this._fault(text, () => ({ what: "rhythm", rhythm, bed: this.bed.value })));
    this.leads = [this._fault("Pull a lead", () => ({ what: "lead_off", lead: 0, bed: this.bed.value })), this._fault("Pull all leads", () => ({ what: "lead_off", bed: this.bed.value }))];
    this.cut = this._fault("Cut the network of all beds", () => ({ what: "loss" }));
    this.kills = el("span.row", {});
    this.node = el("section.happen", { "aria-label": "Make things happen", hidden: true },
      el("h2", {}, "Make something happen"),
      el("div.row", {}, el("label", {}, "For ", this.seconds, " s"), el("label", {}, "to bed ", this.bed), this.what, ...this.rhythms, ...this.leads),
      el("div.row", {}, this.cut, this.kills));
  }

  /** Which beds and roles there are, and what may be done. */
  show() {
    const { store } = this.app, played = Object.keys(store.origins).sort(natural);
    this.node.hidden = played.length === 0;
    const known = [...this.bed.options].map((option) => option.value);
    if (known.join("\n") !== played.join("\n")) {
      const chosen = this.bed.value;
      this.bed.replaceChildren(...played.map((name) => el("option", { value: name, selected: name === chosen }, name)));
    }
    const shards = [...new Set([...store.beds.values()].flatMap((bed) => (bed.status ? [bed.status.shard] : [])))].sort(natural);
    const roles = ["worker", ...shards.map((shard) => `shard.${shard}`), "gateway"];
    if (this.kills.dataset.roles !== roles.join()) {
      this.kills.dataset.roles = roles.join();
      this.kills.replaceChildren(...roles.map((role) => this._kill(role)));
    }
    this._offer();
  }

  /** A recording stays what it is: its leads can be pulled, another rhythm only a synthetic patient can have. */
  _offer() {
    const { store } = this.app, allowed = store.may("engineer"), origin = store.origins[this.bed.value];
    this.what.textContent = origin ? `(${ORIGINS[origin]})` : "";
    for (const button of this.rhythms) button.hidden = origin !== "simulated";
    for (const button of [...this.rhythms, ...this.leads, this.cut, ...this.kills.children]) button.disabled = !allowed;
  }

  _fault(text, about) {
    return el("button", { type: "button", onclick: () => this._ask({ t: "fault", for_s: Number(this.seconds.value), ...about() }, text) }, text);
  }

  _kill(role) {
    const words = role.startsWith("shard.") ? `shard ${role.slice(6)}` : `the ${role}`;
    return el("button.danger", { type: "button", onclick: () => this._ask({ t: "kill", role }, `Kill ${words}`) }, `Kill ${words}`);
  }

  async _ask(message, said) {
    const { ok, text } = await this.app.link.ask(message);
    toast(ok ? `${message.bed ? `${message.bed}: ` : ""}${said}: ${message.role === "gateway" ? "this page comes back by itself" : "done"}` : `refused: ${text}`, ok);
  }
}

/** What plays on a bed, in words. */
export const ORIGINS = { simulated: "simulated patient", replayed: "replayed recording" };
