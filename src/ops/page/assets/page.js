// Draws each message of the relay and watches the connection to it.

import { age, Chart, History, perSecond } from "./charts.js";
import { Controls } from "./controls.js";
import { byId, bytes, count, duration, plural, rate, seconds, text, time } from "./format.js";
import { drawPipeline, isCalm, placeName } from "./pipeline.js";
import { drawErrors, drawEvents, drawLetters, drawTopics } from "./tables.js";

const as = { bytes, count };
/** The relay sends a message every second; after this much silence the connection is lost. */
const SILENCE_MS = 5_000;
const RECONNECT_MS = 1_000;

const samples = new History();
const charts = [
  new Chart(byId("rate-chart"), {
    title: "Records delivered per second",
    ...perSecond,
    series: [
      { field: "delivered_rate", name: "delivered", kind: "main" },
      { field: "read_rate", name: "read", kind: "side" },
    ],
  }),
  new Chart(byId("lag-chart"), {
    title: "How long the oldest event waits",
    ...age,
    series: [{ field: "lag_seconds", name: "behind", kind: "lag" }],
  }),
];
const controls = new Controls(draw);

function draw(now) {
  const { status, sample } = now;
  samples.add(sample);
  fields(status);
  headline(now);
  figures(now);
  drawPipeline(now);
  charts.forEach((chart) => chart.draw(samples));
  drawTopics(now, (topic, paused) => controls.setPaused(topic, paused));
  drawEvents(now);
  drawErrors(now);
  drawLetters(now);
  controls.draw(now);
  text(byId("slot"), now.relay.slot);
  text(byId("version"), `factlib ${now.relay.version}`);
  text(byId("uptime"), `up ${duration(status.uptime_seconds)}`);
  document.title = `${byId("headline").textContent} · ${now.relay.slot} · factlib`;
}

/** Fills the elements that show a field of the status as it is. */
function fields(status) {
  for (const shown of document.querySelectorAll("[data-field]")) {
    const value = status[shown.dataset.field];
    shown.dataset.value = value;
    // 0/0 stands for no position yet.
    text(shown, as[shown.dataset.as]?.(value) ?? (value === "0/0" ? "–" : value.replaceAll("_", " ")));
  }
}

function figures({ status, sample }) {
  text(byId("rate"), sample ? rate(sample.delivered_rate) : "–");
  text(byId("rate-note"), `${rate(status.events_per_second)} over 10 s`);
  const { lag, slot_lost_in_seconds: left } = status;
  text(byId("lag"), lag.seconds === null ? "–" : seconds(lag.seconds));
  text(byId("lag-note"), `${bytes(lag.bytes)} of WAL`);
  text(byId("retained-note"), left === null ? (status.retained_wal_waits_for ?? "") : `slot lost in ${duration(left)}`);
}

function headline(now) {
  const { tone, title, reason, cause = "" } = verdict(now);
  byId("summary").dataset.tone = tone;
  text(byId("headline"), title);
  text(byId("reason"), reason);
  text(byId("cause"), cause);
}

/** The headline: its tone, title and reason. */
function verdict({ status, blocked, unhealthy, sample }) {
  const waiting = Object.values(status.topics).reduce((sum, topic) => sum + topic.waiting, 0);
  const wait = waiting > 0 ? `${plural(waiting, "event waits", "events wait")}, in order. ` : "";
  const at = (place) => blocked.find((other) => other.place === place);
  const kept = "Nothing is lost: delivery resumes by itself.";
  switch (status.state) {
    case "starting":
      return { tone: "idle", title: "Starting", reason: "Connecting, and checking positions." };
    case "standing_by":
      return { tone: "idle", title: "Standing by", reason: "Another instance reads the slot; this one takes over when it ends.", cause: status.error };
    case "retrying": {
      const who = at("kafka") ? "Kafka" : "PostgreSQL";
      return { tone: "bad", title: `Waiting for ${who}`, reason: `${wait}${kept}`, cause: status.error };
    }
    case "draining":
      return { tone: "idle", title: "Stopping", reason: `Finishing what is in flight. ${wait}` };
    case "stopped":
      return { tone: "bad", title: "Stopped", reason: "" };
    default:
  }
  if (at("kafka")) return { tone: "bad", title: "Waiting for Kafka", reason: `${wait}${kept}`, cause: at("kafka").why };
  const troubled = blocked.filter((block) => !isCalm(block));
  if (troubled.length > 0) return { tone: "bad", title: `${placeName(troubled[0].place)} can’t go on`, reason: `${wait}${kept}`, cause: troubled[0].why };
  if (unhealthy) return { tone: "bad", title: "Nothing moves", reason: wait, cause: unhealthy };
  const paused = blocked.filter(({ by }) => by === "pause").map(({ place }) => placeName(place));
  if (paused.length > 0) return { tone: "wait", title: `Paused: ${paused.join(", ")}`, reason: `${wait}When the window is full, other topics wait too.` };
  if (sample?.delivered_rate > 0 || waiting > 0) return { tone: "ok", title: "Delivering", reason: `${rate(sample?.delivered_rate ?? 0)} records per second reach Kafka.` };
  return { tone: "ok", title: "Everything is delivered", reason: "Nothing waits." };
}

// --- The connection -----------------------------------------------------------

let source;
let last = Date.now();
let lostAt = null;

function connect() {
  source?.close();
  source = new EventSource("events");
  source.addEventListener("history", (event) => samples.replace(JSON.parse(event.data).history));
  source.addEventListener("now", (event) => {
    last = Date.now();
    lostAt = null;
    connection("live", "Live");
    draw(JSON.parse(event.data));
  });
  source.addEventListener("error", lost);
}

function lost() {
  lostAt ??= Date.now();
  connection("lost", `No connection since ${time(lostAt)}, reconnecting`);
  // After an error response, a browser does not reconnect by itself.
  if (source.readyState === EventSource.CLOSED) setTimeout(connect, RECONNECT_MS);
}

function connection(state, said) {
  document.body.dataset.connection = state;
  byId("connection").dataset.connection = state;
  text(byId("connection-text"), said);
  if (state === "live") text(byId("connection-age"), "");
}

setInterval(() => {
  if (lostAt) text(byId("connection-age"), `(${duration((Date.now() - lostAt) / 1000)})`);
  else if (Date.now() - last > SILENCE_MS) {
    lost();
    connect();
  }
}, 1_000);

connect();
