// An actor of aioseed in JavaScript, without packages: node actor.mjs ws://127.0.0.1:8700 --envs 64
//
// It needs WebSocket as browsers have it: Node 22, or Node 20 with --experimental-websocket, Deno, Bun. The token is read
// from AIOSEED_TOKEN. Exit codes are those of `aioseed actor`.

import { parseArgs } from "node:util";
import { Rows } from "./rows.mjs";
import { decodeAction, encodeStep } from "./wire.mjs";

const GROUPS = 2; // while the learner looks at one, the other is stepped
const FIRST_PAUSE_S = 0.25, LONGEST_PAUSE_S = 15, LONGEST_ALONE_S = 60;
const INTERRUPTED = 130;

class Ended extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

/** Talk over one connection, until it ends: `run` resolves to {message, forget, at_once}, or rejects with Ended. */
class Conversation {
  constructor(url, token, hello, spec, rows) {
    Object.assign(this, { hello, spec, rows, welcome: null, draining: false });
    this.heard_ms = this.answered_ms = performance.now();
    const secret = token ? [`aioseed.token.${Buffer.from(token).toString("base64url")}`] : [];
    this.socket = new WebSocket(url, ["aioseed.v1", ...secret]);
    this.socket.binaryType = "arraybuffer";
  }

  run() {
    return new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
      let opened = false;
      this.socket.onopen = () => {
        opened = true;
        this.say({ type: "hello", ...this.hello });
      };
      this.socket.onerror = this.socket.onclose = () =>
        this.end({ message: opened ? "the connection broke" : "no learner there, or it did not accept the token" });
      this.socket.onmessage = ({ data }) => {
        this.heard_ms = performance.now();
        try {
          this.take(data);
        } catch (error) {
          this.leave("failed", String(error.message));
          this.fail(error);
        }
      };
      this.watch = setInterval(() => this.lookUp(), 250);
    });
  }

  end(how) {
    this.close();
    this.resolve(how);
  }

  fail(error) {
    this.close();
    this.reject(error);
  }

  /** Say goodbye for good, and why. */
  leave(code, reason) {
    if (this.socket.readyState === WebSocket.OPEN) this.say({ type: "bye", code, reason });
  }

  close() {
    clearInterval(this.watch);
    this.socket.onmessage = this.socket.onclose = this.socket.onerror = null;
    this.socket.close();
  }

  take(data) {
    if (!(data instanceof ArrayBuffer)) throw new Ended(1, "the learner sent text, and every message is binary");
    if (new Uint8Array(data)[0] === 0x7b) return this.control(JSON.parse(new TextDecoder().decode(data)));
    this.answered_ms = this.heard_ms;
    return this.step(decodeAction(data, this.spec.action).map((answer) => this.rows.answer(answer)));
  }

  control(message) {
    if (message.type !== "ping") this.answered_ms = this.heard_ms; // it sends those to whom it does not hear as well
    switch (message.type) {
      case "welcome":
        return this.begin(message);
      case "refused":
        if (message.code === "run_over") return this.fail(new Ended(0, message.message));
        if (!message.retry) return this.fail(new Ended(3, `refused: ${message.message}`));
        if (message.code === "resume_token") return this.end({ message: message.message, forget: true, at_once: true });
        return this.end({ message: message.message });
      case "lease":
        return this.step(this.rows.lease(message.slots, message.epochs));
      case "revoke":
        return this.rows.revoke(message.slots, message.epochs);
      case "ping":
        return this.say({ type: "pong", number: message.number });
      case "drain":
        this.draining = true;
        return undefined;
      case "error":
        return this.refused(message);
      case "bye":
        if (message.code === "run_over") return this.fail(new Ended(0, message.reason || "the run is over"));
        if (message.code === "protocol") return this.fail(new Ended(1, `the learner says: ${message.reason}`));
        return this.end({ message: message.reason || `the learner ended the session (${message.code})`, forget: true });
      default:
        return undefined; // STARTING and PONG were a sign of life, which is all; a later version may have others
    }
  }

  begin(welcome) {
    this.welcome = welcome;
    console.error(`joined ${welcome.run_id} with ${welcome.slots.length} environments`);
    const rows = this.rows.welcome(welcome);
    const size = Math.ceil(rows.length / GROUPS);
    for (let from = 0; from < rows.length; from += size) this.step(rows.slice(from, from + size));
  }

  /** Nothing of a STEP was applied: drop what was taken back meanwhile, and send the rest again. */
  refused({ code, message, rows = [] }) {
    if (rows.length === 0) console.error(`the learner refused a message (${code}): ${message}`); // BYE follows if need be
    for (const row of rows) {
      if (row.code !== "stale_epoch" && row.code !== "not_leased") throw new Ended(1, `a row was refused: ${row.code}`);
      this.rows.revoke([row.slot], [row.epoch]);
    }
    // An equal copy of a row that was applied is answered once more, which `Rows.answer` passes over.
    if (rows.length > 0) this.step([...this.rows.leased.values()]);
  }

  step(rows) {
    const known = rows.filter((row) => row !== undefined);
    const most = this.welcome.max_step_rows;
    for (let from = 0; from < known.length && !this.draining; from += most)
      this.socket.send(encodeStep(known.slice(from, from + most), this.spec.observation, this.spec.metrics?.length));
  }

  say(message) {
    this.socket.send(new TextEncoder().encode(JSON.stringify(message)));
  }

  lookUp() {
    const [silent_s, unanswered_s] = [this.heard_ms, this.answered_ms].map((ms) => (performance.now() - ms) / 1000);
    const { ping_interval_s, ping_timeout_s } = this.welcome ?? { ping_interval_s: Infinity, ping_timeout_s: 0 };
    const patience_s = Math.min(ping_interval_s + ping_timeout_s, LONGEST_ALONE_S);
    if (silent_s > patience_s) this.end({ message: "the learner fell silent" });
    else if (unanswered_s > 3 * patience_s) this.end({ message: "the learner answers nothing" });
    else if (unanswered_s > ping_interval_s) this.say({ type: "ping", number: 0 });
  }
}

/** Serve as an actor, over one connection after another. Rejects with Ended. */
async function serve(url, token, role, spec, environments) {
  const rows = new Rows(environments);
  let talk = null, resume_token = null, pause_s = FIRST_PAUSE_S, alone_ms = performance.now();
  process.once("SIGINT", () => {
    talk.leave("leaving", "interrupted");
    talk.fail(new Ended(INTERRUPTED, "interrupted"));
  });
  for (;;) {
    const hello = { library: "aioseed in JavaScript", actor_id: `js-${process.pid}`, environments: environments.length };
    const state = { role, resume_token, acknowledged_rows: rows.acknowledged };
    talk = new Conversation(url, token, { ...hello, ...spec, ...state }, spec, rows);
    const { message, forget, at_once } = await talk.run();
    if (talk.welcome) [pause_s, alone_ms] = [FIRST_PAUSE_S, performance.now()];
    resume_token = forget ? null : (talk.welcome?.resume_token ?? resume_token);
    if (at_once) continue;
    if (performance.now() - alone_ms > 1000 * LONGEST_ALONE_S) throw new Ended(4, `no learner at ${url}: ${message}`);
    console.error(`${message}; dialling again`);
    await new Promise((resolve) => setTimeout(resolve, 1000 * pause_s * (0.5 + Math.random() / 2)));
    pause_s = Math.min(2 * pause_s, LONGEST_PAUSE_S);
  }
}

const { values: words, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    env: { type: "string", default: "./cartpole.mjs" }, // exports `spec` and the class `Environment`
    envs: { type: "string", default: "64" },
    role: { type: "string", default: "train" },
  },
});
try {
  const { spec, Environment } = await import(new URL(words.env, import.meta.url));
  const environments = Array.from({ length: Number(words.envs) }, () => new Environment());
  await serve(positionals[0], process.env.AIOSEED_TOKEN, words.role, spec, environments);
} catch (error) {
  console.error(error instanceof Ended ? error.message : error);
  process.exitCode = error.code ?? 5;
}
