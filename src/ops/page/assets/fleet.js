// Lists the pipelines of a fleet, and asks for their status every two seconds.

import { byId, bytes, count, element, keyed, plural, rate, seconds, text } from "./format.js";

const EVERY_MS = 2000;

const STATES = {
  starting: ["Starting", "idle"],
  running: ["Running", "ok"],
  standing_by: ["Standing by", "idle"],
  retrying: ["Retrying", "bad"],
  draining: ["Stopping", "wait"],
  stopped: ["Stopped", "bad"],
};

function drawGroup(group) {
  const line = byId("group");
  line.hidden = !group;
  if (!group) return;
  const left = group.unassigned.length ? `, ${plural(group.unassigned.length, "pipeline")} without an instance` : "";
  const place = group.problem
    ? `not a member: ${group.problem}`
    : `runs ${plural(group.pipelines, "pipeline")}, ${plural(group.instances, "instance")} in all${left}`;
  text(line, `Instance ${group.instance} of the group ${group.group}: ${place}`);
}

function draw({ pipelines, group }) {
  drawGroup(group);
  const troubled = pipelines.filter((pipeline) => pipeline.problem);
  const summary = byId("summary");
  summary.dataset.tone = troubled.length ? "bad" : "ok";
  const all = plural(pipelines.length, "pipeline");
  text(byId("headline"), troubled.length ? `${count(troubled.length)} of ${all} in trouble` : `${all}, all healthy`);
  const delivered = pipelines.reduce((sum, pipeline) => sum + pipeline.events_per_second, 0);
  text(byId("reason"), `${rate(delivered)} events delivered per second`);
  byId("pipelines").hidden = pipelines.length === 0;
  byId("pipelines-empty").hidden = pipelines.length > 0;
  keyed(byId("pipelines").tBodies[0], pipelines, ({ name }) => name, row, (row, pipeline) => {
    const [name, state, second, lag, wal, letters] = row.cells;
    const [word, tone] = STATES[pipeline.state] ?? [pipeline.state, "idle"];
    state.dataset.tone = pipeline.problem ? "bad" : tone;
    text(state.querySelector(".word"), word);
    text(name.querySelector(".note"), pipeline.problem ?? "");
    text(second, rate(pipeline.events_per_second));
    text(lag, pipeline.lag.seconds === null ? "–" : seconds(pipeline.lag.seconds));
    text(wal, bytes(pipeline.retained_wal_bytes));
    text(letters, count(pipeline.dead_letters));
  });
}

function row({ name }) {
  const link = element("a", { href: `pipelines/${encodeURIComponent(name)}/` }, name);
  return element(
    "tr",
    {},
    element("th", { scope: "row" }, element("span", { class: "name" }, link), element("span", { class: "note" })),
    element("td", { class: "toned" }, element("span", { class: "dot" }), " ", element("span", { class: "word" })),
    ...["Per second", "Lag", "WAL kept", "Dead letters"].map((label) => element("td", { class: "number", "data-label": label })),
  );
}

function connection(state, words) {
  byId("connection").dataset.connection = state;
  text(byId("connection-text"), words);
}

async function refresh() {
  try {
    const answer = await fetch("status.json", { cache: "no-store" });
    draw(await answer.json());
    connection("live", "Live");
  } catch {
    connection("lost", "Connection lost");
  }
  setTimeout(refresh, EVERY_MS);
}

refresh();
