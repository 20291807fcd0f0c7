// What an actor holds of each slot. Nothing here knows a socket: answers and leases go in, rows to send come out.

import { FIRST, TERMINATED, TRUNCATED } from "./wire.mjs";

/**
 * Hold the environments of an actor, one row each: the one that waits for its answer, or is to be sent.
 * They outlive connections, so after a break every row that is held is sent again.
 */
export class Rows {
  constructor(environments) {
    this.free = [...environments];
    this.leased = new Map(); // slot -> {environment, random, slot, epoch, sequence, flags, reward, observation, metrics}
    this.runId = null;
    this.seed = 0;
    this.acknowledged = 0; // transitions of this run that were answered
  }

  /** Take over what a WELCOME leases. Returns the rows to send: a slot under its old epoch goes on, others are reset. */
  welcome({ run_id, seed = 0, slots, epochs }) {
    if (run_id !== this.runId) this.acknowledged = 0;
    this.runId = run_id;
    this.seed = seed;
    const granted = new Map(slots.map((slot, i) => [slot, BigInt(epochs[i])]));
    for (const { slot, epoch } of [...this.leased.values()]) if (granted.get(slot) !== epoch) this.revoke([slot], [epoch]);
    const again = [...this.leased.values()];
    const fresh = slots.filter((slot) => !this.leased.has(slot));
    return [...again, ...this.lease(fresh, fresh.map((slot) => granted.get(slot)))];
  }

  /** Reset an environment for each slot and return its first rows. */
  lease(slots, epochs) {
    return slots.map((slot, i) => {
      const row = { environment: this.free.pop(), slot, epoch: BigInt(epochs[i]), sequence: -1 };
      row.random = generator([this.seed, slot, Number(row.epoch % 2n ** 32n)]);
      this.leased.set(slot, row);
      return begin(row);
    });
  }

  /** End leases; one that is not held any more is passed over. */
  revoke(slots, epochs) {
    slots.forEach((slot, i) => {
      const row = this.leased.get(slot);
      if (row?.epoch !== BigInt(epochs[i])) return;
      this.leased.delete(slot);
      this.free.push(row.environment);
    });
  }

  /** Take the answer to one row and return the next one, or undefined where it answers nothing that waits. */
  answer({ slot, epoch, sequence, action }) {
    const row = this.leased.get(slot);
    if (row?.epoch !== epoch || row.sequence !== sequence) return undefined;
    if (!(row.flags & FIRST)) this.acknowledged += 1;
    if (row.flags & (TERMINATED | TRUNCATED)) return begin(row); // autoreset is NEXT_STEP: this action is ignored
    const { observation, reward, terminated, truncated, metrics } = row.environment.step(action);
    const flags = terminated ? TERMINATED : truncated ? TRUNCATED : 0;
    return Object.assign(row, { sequence: (sequence + 1) >>> 0, flags, reward, observation, metrics });
  }
}

function begin(row) {
  const observation = row.environment.reset(row.random);
  return Object.assign(row, { sequence: (row.sequence + 1) >>> 0, flags: FIRST, reward: 0, observation, metrics: undefined });
}

/** Return a generator of numbers from 0 to 1 (mulberry32), the same for the same numbers. */
function generator(numbers) {
  let state = numbers.reduce((hash, number) => Math.imul(hash ^ number, 0x9e3779b1) ^ (hash >>> 15), 0x2545f491);
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
