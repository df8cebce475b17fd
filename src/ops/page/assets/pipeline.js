// Draws the picture: actors, lanes, and the places at which events wait.

import { byId, count, element, keyed, plural, text } from "./format.js";

const MOST_LANES = 8;

const names = { postgresql: "PostgreSQL", kafka: "Kafka", window: "the window" };

export function placeName(place) {
  return names[place] ?? place.replace(/^topic:/, "");
}

/** Waits that are no cause for alarm: requested ones, and those of a reader that is ahead. */
const CALM = ["pause", "slot", "window"];
const opening = (block) => block.by === "topic" && block.why === "opening";
export const isCalm = (block) => CALM.includes(block.by) || opening(block);

export function drawPipeline(now) {
  const { status, blocked, relay, sample } = now;
  drawLanes(status, new Set(blocked.map(({ place }) => place)));
  byId("kafka").hidden = !relay.kafka;
  text(byId("slot-name"), relay.slot);
  text(byId("database"), relay.database);
  text(byId("brokers"), brokers(status));
  text(byId("broker-names"), relay.brokers.join(", "));
  const share = status.window_bytes ? status.in_flight_bytes / status.window_bytes : 0;
  byId("window-meter").value = share;
  byId("window-meter").textContent = `${Math.round(share * 100)} %`;
  byId("flow").dataset.moving = String(status.state === "running" && (sample?.delivered_rate ?? 0) > 0);
  for (const node of document.querySelectorAll("#flow .node")) {
    mark(node, blocked.find(({ place }) => place === node.dataset.place), status);
  }
}

function brokers({ kafka }) {
  // The configured address is one of the brokers under another name.
  const all = Object.entries(kafka?.brokers ?? {}).filter(([name]) => !name.endsWith("/bootstrap"));
  const there = all.filter(([, broker]) => broker.connected).length;
  return all.length > 0 ? `${count(there)} of ${plural(all.length, "broker")} connected` : "acks=all";
}

function mark(node, block, status) {
  const place = node.dataset.place;
  const restarts = status.actors?.[place]?.restarts ?? 0;
  const complaint = place === "kafka" ? status.kafka_error : undefined;
  node.dataset.blocked = String(Boolean(block));
  node.dataset.tone = block ? (isCalm(block) ? "wait" : "bad") : complaint ? "wait" : "ok";
  const parts = [block?.why || complaint, restarts ? plural(restarts, "restart") : undefined];
  text(node.querySelector(".why"), parts.filter(Boolean).join(" · "));
}

function drawLanes(status, places) {
  const all = Object.entries(status.topics).map(([name, topic]) => ({ name, ...topic, blocked: places.has(`topic:${name}`) }));
  const weight = (lane) => [lane.blocked ? 1 : 0, lane.waiting > 0 ? 1 : 0, lane.events];
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
