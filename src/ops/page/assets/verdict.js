// Sums up a message of the relay in a headline, and reads out headlines that last.

import { byId, plural, rate, text } from "./format.js";
import { isCalm, placeName } from "./pipeline.js";

/** The headline: its tone, title and reason. */
export function verdict({ status, blocked, unhealthy, sample }) {
  const waiting = Object.values(status.topics).reduce((sum, topic) => sum + topic.waiting, 0);
  const wait = waiting > 0 ? `${plural(waiting, "event waits", "events wait")}, in order. ` : "";
  const at = (place) => blocked.find((other) => other.place === place);
  const kept = "Nothing is lost: delivery resumes by itself.";
  switch (status.state) {
    case "starting":
      return { tone: "idle", title: "Starting", reason: "Connecting, and checking positions.", cause: (at("postgresql") ?? at("kafka"))?.why };
    case "standing_by":
      return { tone: "idle", title: "Standing by", reason: "Another instance reads the slot; this one takes over when it ends.", cause: status.error };
    case "retrying": {
      const who = at("kafka") ? "Kafka" : "PostgreSQL";
      return { tone: "bad", title: `Waiting for ${who}`, reason: `${wait}${kept}`, cause: status.error };
    }
    case "draining":
      return { tone: "idle", title: "Stopping", reason: `Finishing what is in flight. ${wait}` };
    case "stopped":
      return { tone: "bad", title: "Stopped", reason: "", cause: status.stopped_by ?? "" };
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

/** A screen reader hears a headline once it has stood this long: most changes are over sooner. */
const STEADY_MS = 3_000;

/** Tells screen readers of a headline that lasts. That events come and go is not worth a word. */
export class Announcer {
  announce({ tone, title }) {
    const matter = tone === "ok" ? "ok" : title;
    if (matter !== this.matter) Object.assign(this, { matter, since: Date.now(), said: this.matter === undefined && tone === "ok" });
    if (this.said || Date.now() - this.since < STEADY_MS) return;
    this.said = true;
    text(byId("announcement"), title);
  }
}
