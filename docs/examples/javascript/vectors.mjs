// Check wire.mjs against the vectors of the wire: node vectors.mjs ../../reference/wire-vectors.json

import { readFileSync } from "node:fs";
import assert from "node:assert/strict";
import { decodeAction, encodeStep, leaves } from "./wire.mjs";

const vectors = JSON.parse(readFileSync(process.argv[2], "utf8"));
const specs = new Map(vectors.specs.map((spec) => [spec.name, spec]));
let checked = 0;

for (const { name, spec: specName, rows: count, hex, decoded } of vectors.step) {
  const { observation, metrics } = specs.get(specName);
  if (leaves(observation).some(({ dtype }) => dtype === "float16") && !globalThis.Float16Array) continue;
  if (decoded.observation.some((leaf) => leaf.sha256)) continue; // numbers too many to be written out
  const rows = Array.from({ length: count }, (_, i) => ({
    ...identity(decoded, i),
    flags: decoded.flags[i],
    reward: decoded.reward[i],
    metrics: decoded.metrics.slice(i * metrics, (i + 1) * metrics),
    observation: grown(observation, decoded.observation.map((leaf) => part(leaf, i, count))),
  }));
  assert.equal(Buffer.from(encodeStep(rows, observation, metrics)).toString("hex"), hex, name);
  checked += 1;
}

for (const { name, spec: specName, rows: count, hex, decoded } of vectors.action) {
  const { action } = specs.get(specName);
  const wanted = Array.from({ length: count }, (_, i) => {
    const taken = part(decoded.action, i, count);
    return { ...identity(decoded, i), action: action.shape.length === 0 ? taken[0] : taken };
  });
  const bytes = Buffer.from(hex, "hex");
  const rows = decodeAction(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length), action);
  const plain = rows.map((row) => ({ ...row, action: ArrayBuffer.isView(row.action) ? [...row.action] : row.action }));
  assert.deepEqual(plain, wanted, name);
  checked += 1;
}

console.log(`${checked} vectors are right`);

function identity({ slot, epoch, sequence }, i) {
  return { slot: slot[i], epoch: BigInt(epoch[i]), sequence: sequence[i] };
}

function part(numbers, i, count) {
  const size = numbers.length / count;
  return numbers.slice(i * size, (i + 1) * size);
}

/** Put leaves back into a tree. */
function grown(spec, found) {
  const next = (branch) => grown(branch, found);
  if (spec.tuple) return spec.tuple.map(next);
  if (!spec.dict) return bigIf64(spec.dtype, found.shift());
  const keys = Object.keys(spec.dict).sort(); // the vectors have no keys beyond the first plane of Unicode
  return Object.fromEntries(keys.map((key) => [key, next(spec.dict[key])]));
}

function bigIf64(dtype, numbers) {
  return dtype.endsWith("int64") ? numbers.map(BigInt) : numbers;
}
