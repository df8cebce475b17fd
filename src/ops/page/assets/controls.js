// Sends the controls' requests by POST, with a token that stays in this tab.

import { byId, text } from "./format.js";

const KEY = "factlib.token";

export class Controls {
  /** `changed` is called with the state after an action. */
  constructor(changed) {
    this.changed = changed;
    this.dialog = byId("token-dialog");
    this.takeFromAddress();
    this.confirmation = byId("confirm-dialog");
    byId("redrive").addEventListener("click", () => this.redriveAll());
    byId("confirm-no").addEventListener("click", () => this.confirmation.close("no"));
    byId("confirm-yes").addEventListener("click", () => this.confirmation.close("yes"));
    byId("unlock").addEventListener("click", () => (this.token ? this.lock() : this.unlock()));
    byId("token-cancel").addEventListener("click", () => this.dialog.close());
    byId("token-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.tryToken(byId("token").value.trim());
    });
  }

  get token() {
    return sessionStorage.getItem(KEY);
  }

  /** `#token=…` is never sent to a server, and is removed from the browser's history. */
  takeFromAddress() {
    const token = new URLSearchParams(location.hash.slice(1)).get("token");
    if (!token) return;
    sessionStorage.setItem(KEY, token);
    history.replaceState(null, "", location.pathname + location.search);
  }

  draw({ controls }) {
    this.on = controls;
    const unlock = byId("unlock");
    unlock.hidden = !controls;
    text(unlock, this.token ? "Lock" : "Unlock");
    text(byId("controls-text"), this.say());
  }

  say() {
    if (!this.on) {
      return "Off. To pause topics and redrive dead letters from here, set http.token (FACTLIB_HTTP__TOKEN) or http.token_file and restart the relay.";
    }
    return this.token ? "Unlocked in this tab: topics can be paused, dead letters redriven." : "Locked. Pausing topics and redriving dead letters require the token.";
  }

  setPaused(topic, paused) {
    return this.ask(paused ? "pause" : "resume", { topic });
  }

  redriveAll() {
    return this.redrive("Redrive all dead letters?", "All that were not redriven yet are sent to their topics, with the same event ids.");
  }

  redriveOne({ position, source_topic: topic }) {
    return this.redrive("Redrive this dead letter?", `It is sent to ${topic ?? "the topics that its route names"}, with the same event id.`, { letters: [position] });
  }

  async redrive(title, sentence, body) {
    const late = "Later events of the same aggregate may have arrived before.";
    if (await this.confirm(title, `${sentence} ${late}`, "Redrive")) await this.ask("redrive", body);
  }

  /** Asks for consent; true if it is given. */
  confirm(title, sentence, yes) {
    text(byId("confirm-title"), title);
    text(byId("confirm-text"), sentence);
    text(byId("confirm-yes"), yes);
    const dialog = this.confirmation;
    dialog.returnValue = "";
    dialog.showModal();
    return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
  }

  /** Sends a request with the token; asks for the token first if there is none. */
  async ask(action, body) {
    text(byId("controls-error"), "");
    if (!this.token) return this.unlock(() => this.ask(action, body));
    const { status, answer } = await this.post(action, body);
    if (status === 401) {
      this.lock();
      return this.unlock(() => this.ask(action, body), "The token is no longer valid.");
    }
    if (answer?.error) return text(byId("controls-error"), `${action}: ${answer.error}`);
    this.changed(answer);
  }

  unlock(then, complaint = "") {
    this.then = then;
    text(byId("token-error"), complaint);
    byId("token").value = "";
    this.dialog.showModal();
    byId("token").focus();
  }

  lock() {
    sessionStorage.removeItem(KEY);
    this.draw({ controls: this.on });
  }

  async tryToken(token) {
    const { status, answer } = await this.post("token", undefined, token);
    if (status !== 204) return text(byId("token-error"), answer?.error ?? "No answer.");
    sessionStorage.setItem(KEY, token);
    this.dialog.close();
    this.draw({ controls: this.on });
    this.then?.();
  }

  async post(action, body, token = this.token) {
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
    try {
      const answer = await fetch(`controls/${action}`, { method: "POST", headers, body: body && JSON.stringify(body) });
      return { status: answer.status, answer: answer.status === 204 ? undefined : await answer.json() };
    } catch {
      return { status: 0, answer: { error: "the relay does not answer" } };
    }
  }
}
