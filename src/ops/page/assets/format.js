// Formats numbers, sizes and times, and builds elements; text from outside is only inserted as text.

const whole = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });
const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export const count = (n) => whole.format(Math.round(n));

/** Events per second; small rates get a decimal. */
export const rate = (n) => (n > 0 && n < 10 ? n.toFixed(1) : count(n));

export function bytes(n) {
  let unit = 0;
  while (n >= 1024 && unit < UNITS.length - 1) {
    n /= 1024;
    unit += 1;
  }
  const text = unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(1).replace(/\.0$/, "");
  return `${text} ${UNITS[unit]}`;
}

export const time = (ms) => clock.format(ms);

export const dayAndTime = (ms) => day.format(ms);

export function duration(seconds) {
  const s = Math.max(0, Math.round(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return s % 60 && s < 600 ? `${Math.floor(s / 60)} min ${s % 60} s` : `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** A lag; a short one is shown more precisely. */
export function seconds(s) {
  if (s > 0 && s < 0.95) return `${Math.max(1, Math.round(s * 1000))} ms`;
  return s < 10 && s > 0 ? `${s.toFixed(1).replace(/\.0$/, "")} s` : duration(s);
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

export const byId = (id) => document.getElementById(id);

/** Sets text only if it differs, which keeps selections and screen readers undisturbed. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** An element with attributes and children; strings become text. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Makes the children of `parent` match `items`; elements are kept by key. */
export function keyed(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    old.delete(name);
    if (!child) {
      child = make(item);
      child.dataset.key = name;
    }
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
    update?.(child, item);
  }
  for (const child of old.values()) child.remove();
}
