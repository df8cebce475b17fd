// Topics, events, errors, dead letters.

import { byId, count, element, keyed, plural, rate, text, time } from "./format.js";

const WAITS = {
  pause: ["Paused", "wait"],
  topic: ["Failed, reopening", "bad"],
  handler: ["Handler retries", "wait"],
  kafka: ["Waiting for Kafka", "bad"],
};

function topicState(topic) {
  if (topic.paused) return WAITS.pause;
  if (topic.blocked_by === "topic" && !topic.last_error) return ["Opening", "idle"];
  return WAITS[topic.blocked_by] ?? (topic.open ? ["Open", "ok"] : ["Not open", "idle"]);
}

/** The buttons call `ask(topic, paused)`; without controls there are no buttons. */
export function drawTopics({ status, controls }, ask) {
  const topics = Object.entries(status.topics);
  byId("topics").hidden = topics.length === 0;
  byId("topics-empty").hidden = topics.length > 0;
  keyed(byId("topics").tBodies[0], topics, ([name]) => name, ([name]) => topicRow(name, ask), (row, [name, topic]) => {
    const [, state, events, second, waiting, failures, control] = row.cells;
    const [word, tone] = topicState(topic);
    row.dataset.topic = name;
    state.dataset.tone = tone;
    text(state.querySelector(".word"), word);
    value(events, topic.events);
    text(second, rate(topic.events_per_second));
    value(waiting, topic.waiting);
    value(failures, topic.restarts);
    failures.title = topic.last_error ?? "";
    text(row.cells[0].querySelector(".note"), topic.refused ?? topic.retrying ?? (topic.restarts && !topic.open ? topic.last_error : "") ?? "");
    const button = control.firstElementChild;
    button.hidden = !controls;
    text(button, topic.paused ? "Resume" : "Pause");
    button.setAttribute("aria-label", `${button.textContent} ${name}`);
    button.dataset.paused = topic.paused;
  });
}

function topicRow(name, ask) {
  const button = element("button", { type: "button" });
  button.addEventListener("click", () => ask(name, button.dataset.paused !== "true"));
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, element("span", { class: "name" }, name), element("span", { class: "note" })),
    element("td", { class: "toned" }, element("span", { class: "dot" }), " ", element("span", { class: "word" })),
    ...["Delivered", "Per second", "Waiting", "Failures"].map((label) => element("td", { class: "number", "data-label": label })),
    element("td", { class: "control" }, button),
  );
}

function value(cell, number) {
  cell.dataset.value = number;
  text(cell, count(number));
}

export function drawEvents({ recent }) {
  const events = [...recent.events].reverse();
  byId("events-scroll").hidden = events.length === 0;
  byId("events-empty").hidden = events.length > 0;
  keyed(byId("events").tBodies[0], events, (event) => `${event.lsn} ${event.topic}`, (event) =>
    element(
      "tr",
      {},
      element("td", { class: "time" }, time(event.at_ms)),
      element("td", {}, element("span", { class: "kind" }, event.aggregate_type), " ", event.aggregate_id),
      element("td", {}, event.event_type),
      element("td", {}, event.topic),
      element("td", {}, element("code", {}, event.lsn)),
    ),
  );
}

export function drawErrors({ status, recent }) {
  const errors = [...recent.errors].reverse();
  byId("errors-empty").hidden = errors.length > 0;
  const key = (error) => `${error.place} ${error.first_ms}`;
  keyed(byId("errors"), errors, key, entry, (item, error) => {
    item.dataset.place = error.place;
    const again = error.count > 1 ? `, ${count(error.count)} times since ${time(error.first_ms)}` : "";
    text(item.querySelector(".when"), `${time(error.at_ms)}${again}`);
    text(item.querySelector(".where"), error.place);
    text(item.querySelector(".what"), error.error);
  });
  const restarts = Object.entries(status.restarts ?? {}).map(([actor, times]) => `${actor} ${count(times)}`);
  const connection = status.replication_errors > 0 ? `${plural(status.replication_errors, "failure")} of the replication connection` : "";
  const said = [restarts.length ? `Restarts: ${restarts.join(", ")}` : "No actor was restarted", connection];
  text(byId("restarts"), `${said.filter(Boolean).join(". ")}.`);
}

export function drawLetters({ recent, redrive, controls }) {
  const letters = [...recent.dead_letters].reverse();
  byId("letters-empty").hidden = letters.length > 0;
  keyed(byId("letters"), letters, (letter) => `${letter.lsn} ${letter.topic}`, entry, (item, letter) => {
    text(item.querySelector(".when"), time(letter.at_ms));
    text(item.querySelector(".where"), `${letter.aggregate_type} ${letter.aggregate_id}`);
    text(item.querySelector(".what"), `${letter.event_type}${letter.topic ? ` for ${letter.topic}` : ""}: ${letter.error}`);
  });
  const button = byId("redrive");
  button.hidden = !controls || !redrive.possible;
  button.disabled = redrive.running;
  byId("redrive-result").dataset.running = String(redrive.running);
  text(byId("redrive-result"), redriveResult(redrive));
}

function entry() {
  return element("li", {}, element("p", {}, element("b", { class: "where" }), " ", element("span", { class: "when" })), element("p", { class: "what" }));
}

function redriveResult({ running, ended_ms, redriven, before, failed, error }) {
  if (!running && !ended_ms) return "";
  const numbers = [`${count(redriven)} redriven`, before ? `${count(before)} before` : "", failed ? `${count(failed)} refused again` : ""];
  const said = numbers.filter(Boolean).join(", ");
  if (running) return `Redriving: ${said}`;
  return `${time(ended_ms)}: ${said}${error ? `. ${error}` : ""}`;
}
