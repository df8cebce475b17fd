// Draws each message of the relay and watches the connection to it.

import { age, Chart, History, perSecond } from "./charts.js";
import { Controls } from "./controls.js";
import { byId, bytes, count, duration, rate, seconds, text, time } from "./format.js";
import { drawPipeline } from "./pipeline.js";
import { Search } from "./search.js";
import { drawErrors, drawEvents, drawLetters, drawTopics } from "./tables.js";
import { Announcer, verdict } from "./verdict.js";

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
const search = new Search(controls);
const announcer = new Announcer();

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
  search.draw(now);
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
  const said = verdict(now);
  const { tone, title, reason, cause = "" } = said;
  byId("summary").dataset.tone = tone;
  text(byId("headline"), title);
  text(byId("reason"), reason);
  text(byId("cause"), cause);
  announcer.announce(said);
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
