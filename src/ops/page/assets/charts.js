// Draws the last minutes as SVG lines, with a sentence for screen readers.

import { count, duration, element, rate, seconds, text, time } from "./format.js";

const [WIDTH, HEIGHT] = [600, 120];
const LONGEST_MS = 600_000;
const SHORTEST_MS = 60_000;
/** Samples further apart than this are not joined. */
const GAP_MS = 5_000;
const FIELDS = ["at_ms", "read_rate", "delivered_rate", "lag_seconds"];

/** The samples as one list per field, as the relay sends them. */
export class History {
  constructor() {
    this.replace({});
  }

  replace(columns) {
    for (const field of FIELDS) this[field] = [...(columns[field] ?? [])];
  }

  add(sample) {
    if (!sample || sample.at_ms === this.at_ms.at(-1)) return;
    for (const field of FIELDS) this[field].push(sample[field]);
    while (this.at_ms.length > LONGEST_MS / 1000) for (const field of FIELDS) this[field].shift();
  }
}

const svg = (tag, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};

export class Chart {
  /** `series`: field, name and class of each line; the most important line first. */
  constructor(figure, { title, format, ceiling, series }) {
    Object.assign(this, { figure, title, format, ceiling, series });
    this.picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    for (const share of [0, 0.5, 1]) {
      const y = HEIGHT * share;
      this.picture.append(svg("line", { x1: 0, x2: WIDTH, y1: y, y2: y, class: "grid" }));
    }
    this.lines = series.map(({ kind }) => {
      const [area, line] = [svg("path", { class: `area ${kind}` }), svg("path", { class: `line ${kind}` })];
      this.picture.append(area, line);
      return { area, line };
    });
    this.cursor = svg("line", { y1: 0, y2: HEIGHT, class: "cursor" });
    this.picture.append(this.cursor);
    this.top = element("span", { class: "axis top", "aria-hidden": "true" });
    this.from = element("span", { class: "axis from", "aria-hidden": "true" });
    this.caption = element("figcaption");
    const plot = element("div", { class: "plot" });
    plot.append(this.picture, this.top, this.from, element("span", { class: "axis to", "aria-hidden": "true" }, "now"));
    figure.append(this.caption, plot);
    plot.addEventListener("pointermove", (event) => this.point(event));
    plot.addEventListener("pointerleave", () => this.point());
  }

  draw(history) {
    this.history = history;
    const times = history.at_ms;
    const to = times.at(-1) ?? 0;
    const span = Math.min(LONGEST_MS, Math.max(SHORTEST_MS, to - (times[0] ?? to)));
    const values = this.series.map(({ field }) => history[field]);
    const most = Math.max(0, ...values.flat());
    this.scale = { to, span, top: this.ceiling(most) };
    values.forEach((list, index) => this.trace(this.lines[index], times, list));
    text(this.top, this.format(this.scale.top));
    text(this.from, `${duration(span / 1000)} ago`);
    const [first] = this.series;
    const now = history[first.field].at(-1) ?? null;
    const said = now === null ? "not known now" : `${this.format(now)} now, at most ${this.format(most)} in the last ${duration(span / 1000)}`;
    this.picture.setAttribute("aria-label", `${this.title}: ${said}`);
    this.said = said;
    if (!this.pointed) text(this.caption, said);
  }

  trace({ area, line }, times, values) {
    const { to, span, top } = this.scale;
    const x = (at) => (WIDTH * (at - to + span)) / span;
    const y = (value) => HEIGHT - (HEIGHT * value) / top;
    let [drawn, filled, begun, last] = ["", "", null, null];
    const close = () => {
      if (begun !== null) filled += `L${x(last).toFixed(1)} ${HEIGHT}L${x(begun).toFixed(1)} ${HEIGHT}Z`;
    };
    times.forEach((at, index) => {
      if (values[index] === null) return;
      const point = `${x(at).toFixed(1)} ${y(values[index]).toFixed(1)}`;
      const joined = last !== null && at - last <= GAP_MS;
      if (!joined) {
        close();
        begun = at;
      }
      drawn += `${joined ? "L" : "M"}${point}`;
      filled += `${joined ? "L" : "M"}${point}`;
      last = at;
    });
    close();
    line.setAttribute("d", drawn);
    area.setAttribute("d", filled);
  }

  /** Reads out the sample under the pointer. */
  point(event) {
    const times = this.history?.at_ms ?? [];
    this.pointed = Boolean(event) && times.length > 0;
    this.cursor.classList.toggle("shown", this.pointed);
    if (!this.pointed) return text(this.caption, this.said ?? "");
    const box = this.picture.getBoundingClientRect();
    const { to, span } = this.scale;
    const wanted = to - span + (span * (event.clientX - box.left)) / box.width;
    const nearest = times.reduce((best, at, index) => (Math.abs(at - wanted) < Math.abs(times[best] - wanted) ? index : best), 0);
    const x = (WIDTH * (times[nearest] - to + span)) / span;
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    const said = (value) => (value === null ? "not known" : this.format(value));
    const values = this.series.map(({ field, name }) => `${said(this.history[field][nearest])} ${name}`);
    text(this.caption, `${time(times[nearest])} · ${values.join(" · ")}`);
  }
}

/** Formats of a chart's values, and the next round number above the largest. */
export const perSecond = {
  format: (n) => `${n >= 10 ? count(n) : rate(n)}/s`,
  ceiling(most) {
    const power = 10 ** Math.floor(Math.log10(Math.max(most, 1)));
    return [1, 2, 5, 10].map((factor) => factor * power).find((top) => top >= most);
  },
};

const SPANS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400];
export const age = {
  format: seconds,
  ceiling: (most) => SPANS.find((top) => top >= most) ?? 86400 * Math.ceil(most / 86400),
};
