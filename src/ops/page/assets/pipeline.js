// The picture: actors, lanes, and the places at which something waits.

import { byId, bytes, count, element, keyed, plural, text } from "./format.js";

const MOST_LANES = 8;

const names = { postgresql: "PostgreSQL", kafka: "Kafka", window: "the window" };

export function placeName(place) {
  return names[place] ?? place.replace(/^topic:/, "");
}

export function drawPipeline(now) {
  const { status, blocked, relay, sample } = now;
  const reasons = new Map(blocked.map(({ place, why }) => [place, why]));
  drawLanes(status, reasons);
  byId("kafka").hidden = !relay.kafka;
  text(byId("slot-name"), relay.slot);
  const share = status.window_bytes ? status.in_flight_bytes / status.window_bytes : 0;
  byId("window-meter").value = share;
  byId("window-meter").textContent = `${Math.round(share * 100)} %`;
  byId("flow").dataset.moving = String(status.state === "running" && (sample?.delivered_rate ?? 0) > 0);
  for (const node of document.querySelectorAll("#flow .node[data-place]")) {
    mark(node, reasons.get(node.dataset.place), status);
  }
}

function mark(node, why, status) {
  const place = node.dataset.place;
  const actor = status.actors?.[place];
  const waits = actor?.blocked_by ? `Waits for ${waitsFor(actor.blocked_by)}` : undefined;
  const complaint = place === "kafka" ? status.kafka_error : undefined;
  const restarts = actor?.restarts ?? status.restarts?.[place] ?? 0;
  // Who stands by waits for the other instance, and nothing is wrong.
  const calm = why === "paused" || status.state === "standing_by";
  node.dataset.blocked = String(Boolean(why));
  node.dataset.tone = why ? (calm ? "wait" : "bad") : waits || complaint ? "wait" : "ok";
  const parts = [why ?? waits ?? complaint, restarts ? plural(restarts, "restart") : undefined];
  text(node.querySelector(".why"), parts.filter(Boolean).join(" · "));
}

function waitsFor(what) {
  return { window: "room in the window", pause: "its topic to be resumed" }[what] ?? what;
}

function drawLanes(status, reasons) {
  const all = Object.entries(status.topics).map(([name, topic]) => ({ name, ...topic, why: reasons.get(`topic:${name}`) }));
  const weight = (lane) => [lane.why ? 1 : 0, lane.waiting > 0 ? 1 : 0, lane.events];
  const heavier = (a, b) => {
    const [x, y] = [weight(a), weight(b)];
    return y[0] - x[0] || y[1] - x[1] || y[2] - x[2];
  };
  const shown = all.length > MOST_LANES ? all.sort(heavier).slice(0, MOST_LANES) : all;
  shown.sort((a, b) => (a.name < b.name ? -1 : 1));
  keyed(byId("lanes"), shown, (lane) => lane.name, makeLane, (node, lane) => {
    text(node.querySelector(".detail"), laneDetail(lane));
    node.dataset.events = lane.events;
    node.dataset.waiting = lane.waiting;
  });
  const rest = all.length - shown.length;
  text(byId("lanes-more"), all.length === 0 ? "No topic yet" : rest > 0 ? `and ${count(rest)} more below` : "");
}

function makeLane(lane) {
  return element(
    "li",
    { class: "node lane", "data-place": `topic:${lane.name}` },
    element("h3", { title: lane.name }, lane.name),
    element("p", { class: "detail" }),
    element("p", { class: "why" }),
  );
}

function laneDetail(lane) {
  const waiting = lane.waiting > 0 ? ` · ${count(lane.waiting)} waiting` : "";
  return `${count(lane.events)} delivered${waiting}`;
}

/** What is behind, as far as the relay says it. */
export function lagOf({ status, sample }) {
  const lag = status.lag;
  if (lag && typeof lag === "object") {
    const seconds = lag.seconds === null ? "" : `${lag.seconds < 10 ? lag.seconds.toFixed(1) : count(lag.seconds)} s`;
    return { main: seconds || bytes(lag.bytes), note: seconds ? bytes(lag.bytes) : "" };
  }
  return { main: sample ? bytes(sample.lag_bytes) : "–", note: "of WAL not saved" };
}
