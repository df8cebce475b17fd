// Finds dead letters in their topic, and offers to redrive each.

import { byId, count, dayAndTime, element, keyed, plural, text } from "./format.js";

export class Search {
  constructor(controls) {
    this.controls = controls;
    byId("search-form").addEventListener("submit", (event) => {
      event.preventDefault();
      text(byId("search-error"), "");
      this.find(byId("query").value.trim());
    });
  }

  draw(now) {
    byId("search").hidden = !now.relay.kafka;
    this.waiting = Object.values(now.status.topics).reduce((sum, topic) => sum + topic.waiting, 0);
    this.redrive = now.controls && now.redrive.possible;
    for (const button of document.querySelectorAll("#found button")) this.drawButton(button, now.redrive.running);
    // A run that has ended changes what was found.
    if (this.running && !now.redrive.running && this.query !== undefined) {
      text(byId("search-error"), now.redrive.error ?? "");
      this.find(this.query);
    }
    this.running = now.redrive.running;
  }

  async find(query) {
    const button = byId("search-button");
    if (button.disabled) return;
    button.disabled = true;
    text(byId("search-result"), "Searching");
    const { found, error } = await this.ask(query);
    button.disabled = false;
    this.query = error ? undefined : query;
    text(byId("search-result"), error ?? summary(query, found));
    text(byId("search-hint"), found && found.matching === 0 && query ? this.notFound() : "");
    this.show(found?.letters ?? []);
  }

  async ask(query) {
    try {
      const answer = await fetch(`dead-letters?q=${encodeURIComponent(query)}`);
      const body = await answer.json();
      return answer.ok ? { found: body } : { error: `The search failed: ${body.error}` };
    } catch {
      return { error: "The search failed: the relay does not answer." };
    }
  }

  /** What is known of an event that is no dead letter. */
  notFound() {
    const waiting = this.waiting > 0 ? ` (${plural(this.waiting, "event waits", "events wait")} now)` : "";
    return (
      `If this is the id of an event, it was delivered, or still waits${waiting}, or a route dropped it, or its transaction did not commit. ` +
      "The relay keeps no list of delivered events: look for the header event_id in the event’s topic."
    );
  }

  show(letters) {
    keyed(byId("found"), letters, (letter) => letter.position, (letter) => this.entry(letter), (item, letter) => {
      const button = item.querySelector("button");
      button.dataset.redriven = String(letter.redriven_ms !== null);
      this.drawButton(button, this.running);
      text(item.querySelector(".redriven"), letter.redriven_ms === null ? "Not redriven" : `Redriven ${dayAndTime(letter.redriven_ms)}`);
    });
  }

  drawButton(button, running) {
    button.hidden = !this.redrive || button.dataset.redriven === "true";
    button.disabled = running;
  }

  entry(letter) {
    const aggregate = [letter.aggregate_type, letter.aggregate_id].filter(Boolean).join(" ") || "no aggregate";
    const button = element("button", { type: "button", "aria-label": `Redrive ${letter.event_id || letter.position}` }, "Redrive");
    button.addEventListener("click", () => this.controls.redriveOne(letter));
    const facts = [
      letter.event_id && `Event ${letter.event_id}`,
      letter.event_type && `Type ${letter.event_type}`,
      letter.source_topic ? `For ${letter.source_topic}` : "Topic not known",
      letter.lsn && `LSN ${letter.lsn}`,
      `Position ${letter.position}`,
    ];
    return element(
      "li",
      { "data-position": letter.position },
      element("p", {}, element("b", { class: "where" }, aggregate), " ", element("span", { class: "when" }, `parked ${dayAndTime(letter.parked_ms)}`)),
      button,
      element("p", { class: "what" }, letter.error ?? "No reason is recorded."),
      element("p", { class: "facts" }, ...facts.filter(Boolean).map((fact) => element("span", {}, fact)), element("span", { class: "redriven" })),
    );
  }
}

function summary(query, { exists, topic, searched, matching, complete, letters }) {
  if (!exists) return `There are no dead letters: topic ${topic} does not exist.`;
  const scope = `${plural(searched, "dead letter")} in topic ${topic}`;
  const rest = complete ? "" : " The search ended after 15 seconds, before the end of the topic; factlib dead-letter list reads all of it.";
  const shown = letters.length < matching ? `, the newest ${count(letters.length)} are shown` : "";
  if (matching === 0) return `${query ? `No dead letter matches “${query}”` : "There are no dead letters"} (searched ${scope}).${rest}`;
  return `${count(matching)} of ${scope} ${matching === 1 ? "matches" : "match"}${shown}.${rest}`;
}
