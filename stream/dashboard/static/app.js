// The page: its banner and its pages, one loop that draws, one that keeps the words.

import { Announcer, Sound } from "./announce.js";
import { el, put, say } from "./dom.js";
import { Link } from "./link.js";
import { Store } from "./store.js";
import { Overview } from "./overview.js";
import { BedPage } from "./bed.js";
import { AlarmList } from "./list.js";
import { Engineering } from "./engineering.js";
import { setup } from "./setup.js";

const link = new Link(), store = new Store(link), sound = new Sound(store);
const app = { link, store, sound, frames: 0 };
new Announcer(store);
const main = document.getElementById("page");
let page = null;

/** The name in an address; one that is badly written stands for itself, and is no bed. */
function decoded(name) {
  try { return decodeURIComponent(name); } catch { return name; }
}

function route() {
  const [, kind = "", name = ""] = location.hash.split("/");
  page?.leave();
  page = kind === "bed" ? new BedPage(app, decoded(name)) : kind === "alarms" ? new AlarmList(app) : kind === "engineering" ? new Engineering(app) : new Overview(app);
  app.page = page;
  main.replaceChildren(page.node);
  for (const anchor of document.querySelectorAll("nav a")) put(anchor, "aria-current", anchor.hash === `#/${kind}` ? "page" : null);
  page.enter();
  page.tick(performance.now());
}

store.addEventListener("change", (event) => page?.change?.(event));
store.addEventListener("change", ({ what }) => { if (what === "snapshot" || what === "gateway") banner(); });
store.addEventListener("change", ({ what }) => { if (what === "flow") unrecorded(store.flow.gateway.events_unrecorded ?? 0); });
link.addEventListener("state", banner);
addEventListener("hashchange", () => { route(); main.focus({ preventScroll: true }); });

function unrecorded(n) {
  const node = document.getElementById("unrecorded");
  node.hidden = n === 0;
  say(node, n ? `ALARMS NOT RECORDED: ${n} alert event${n === 1 ? " is" : "s are"} not on disk; the journal cannot be written` : "");
}

function banner() {
  const node = document.getElementById("link");
  const away = link.state !== "live";
  say(node, away ? `NO CONNECTION: ${link.reason || "trying"}` : store.silent ? "GATEWAY SILENT" : "live");
  put(node, "data-away", away || store.silent);
  say(document.getElementById("ward"), store.ward.name ? `${store.ward.name} · ${store.ward.unit}` : "Wardbeat");
}

document.getElementById("sound").addEventListener("click", async ({ currentTarget }) => {
  const on = await sound.toggle();
  put(currentTarget, "aria-pressed", String(on));
  say(currentTarget, on ? "Sound on" : "Sound off");
});
document.getElementById("setup").addEventListener("click", () => setup(app));

setInterval(() => {
  page?.tick(performance.now());
  say(document.getElementById("clock"), new Date().toLocaleTimeString("en-GB"));
}, 250);

requestAnimationFrame(function draw(now) {
  page?.frame?.(performance.now());
  app.frames += 1;
  requestAnimationFrame(draw);
});

addEventListener("error", ({ message }) => { document.body.append(el("pre.fault", { role: "alert" }, `A fault of this page: ${message}`)); }, { once: true });

window.wardbeat = app; // to look at from the console, and for the tests
route();
