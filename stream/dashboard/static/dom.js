// Nodes from data. Texts go in as text nodes and attributes by name: nothing from outside ever becomes markup.

const SVG = "http://www.w3.org/2000/svg";

/** el("a.big", {href, onclick, dataset: {..}}, child, "text", ...) */
export function el(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  return fill(document.createElement(name), classes, props, children);
}

/** The same for SVG. */
export function svg(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  return fill(document.createElementNS(SVG, name), classes, props, children);
}

function fill(node, classes, props, children) {
  if (classes.length) node.classList.add(...classes);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key === "dataset") Object.assign(node.dataset, value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Sets a node's text only where it changes, for a change costs a layout. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Sets or takes away an attribute, only where it changes. */
export function put(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

const byName = new Intl.Collator("en", { numeric: true });

/** bed2 before bed10. */
export const natural = (a, b) => byName.compare(a, b);

/** "2.5 s", "42 s", "3:07", "1 h 12" */
export function age(seconds) {
  if (seconds < 10) return `${Math.max(seconds, 0).toFixed(1)} s`;
  const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (hours < 1) return `${minutes}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
  return `${hours} h ${String(minutes % 60).padStart(2, "0")}`;
}

/** hh:mm:ss of a time in ms since 1970 */
export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
