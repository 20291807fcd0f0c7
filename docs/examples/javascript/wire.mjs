// STEP and ACTION of the wire, version 1, to and from arrays. Nothing here knows a socket or an environment.

const STEP = 1, ACTION = 2, VERSION = 1, HEADER_BYTES = 8;
export const FIRST = 1, TERMINATED = 2, TRUNCATED = 4;

const ARRAYS = {
  uint8: Uint8Array, int8: Int8Array, uint16: Uint16Array, int16: Int16Array, uint32: Uint32Array, int32: Int32Array,
  uint64: BigUint64Array, int64: BigInt64Array, float16: globalThis.Float16Array, float32: Float32Array,
  float64: Float64Array,
};

if (new Uint8Array(new Uint32Array([1]).buffer)[0] !== 1) throw new Error("typed arrays are not little-endian here");

/** Return the arrays of an observation spec, depth first, keys sorted by code point. */
export function leaves(spec) {
  if (spec.dict) return sortedKeys(spec.dict).flatMap((key) => leaves(spec.dict[key]));
  if (spec.tuple) return spec.tuple.flatMap(leaves);
  return [spec];
}

/** Return the values of an observation in the order of `leaves`. */
export function values(spec, observation) {
  if (spec.dict) return sortedKeys(spec.dict).flatMap((key) => values(spec.dict[key], observation[key]));
  if (spec.tuple) return spec.tuple.flatMap((part, i) => values(part, observation[i]));
  return [observation];
}

/** Return a STEP of `rows`, each {epoch, slot, sequence, reward, flags, metrics, observation}. */
export function encodeStep(rows, observation, metricCount = 0) {
  const parts = leaves(observation);
  const columns = [...identity(), ["float32", 1], ["float32", metricCount], ["uint8", 1], ...parts.map(shaped)];
  const { buffer, views } = lay(columns, rows.length);
  header(buffer, STEP, rows.length);
  const [epoch, slot, sequence, reward, metrics, flags, ...observed] = views;
  rows.forEach((row, i) => {
    epoch[i] = row.epoch;
    slot[i] = row.slot;
    sequence[i] = row.sequence;
    reward[i] = row.reward;
    metrics.set(row.metrics ?? [], i * metricCount);
    flags[i] = row.flags;
    values(observation, row.observation).forEach((value, leaf) => {
      const size = observed[leaf].length / rows.length;
      const numbers = typeof value === "number" || typeof value === "bigint" ? [value] : value;
      if (numbers.length !== size) throw new Error(`an observation has ${numbers.length} numbers instead of ${size}`);
      observed[leaf].set(numbers, i * size);
    });
  });
  return buffer;
}

/** Return the rows of an ACTION, each {epoch, slot, sequence, action}; an array action is a typed array. */
export function decodeAction(message, action) {
  const head = new DataView(message);
  if (head.byteLength < HEADER_BYTES || head.getUint8(0) !== ACTION || head.getUint8(1) !== VERSION)
    throw new Error("this is no ACTION of version 1");
  const count = head.getUint32(4, true);
  const { bytes, views } = lay([...identity(), shaped(action)], count, message);
  if (bytes !== message.byteLength) throw new Error(`an ACTION has ${message.byteLength} bytes instead of ${bytes}`);
  const [epoch, slot, sequence, taken] = views;
  const size = taken.length / count;
  return Array.from({ length: count }, (_, i) => ({
    epoch: epoch[i],
    slot: slot[i],
    sequence: sequence[i],
    action: action.shape.length === 0 ? taken[i] : taken.slice(i * size, (i + 1) * size),
  }));
}

function identity() {
  return [["uint64", 1], ["uint32", 1], ["uint32", 1]];
}

function shaped({ dtype, shape }) {
  return [dtype, shape.reduce((product, size) => product * size, 1)];
}

/** Lay columns of [dtype, numbers a row] out; each begins at a multiple of 8 bytes. Returns views of them. */
function lay(columns, count, given) {
  let bytes = HEADER_BYTES;
  const places = columns.map(([dtype, size]) => {
    const array = ARRAYS[dtype];
    if (!array) throw new Error(`JavaScript has no arrays of ${dtype}`);
    bytes = (bytes + 7) & ~7;
    const place = [array, bytes, count * size];
    bytes += count * size * array.BYTES_PER_ELEMENT;
    return place;
  });
  const buffer = given ?? new ArrayBuffer(bytes);
  if (buffer.byteLength < bytes) throw new Error(`a message has ${buffer.byteLength} bytes instead of ${bytes}`);
  return { buffer, bytes, views: places.map(([array, offset, length]) => new array(buffer, offset, length)) };
}

function header(buffer, type, count) {
  const head = new DataView(buffer);
  head.setUint8(0, type);
  head.setUint8(1, VERSION);
  head.setUint32(4, count, true);
}

function sortedKeys(object) {
  const points = (text) => Array.from(text, (character) => character.codePointAt(0));
  return Object.keys(object).sort((a, b) => {
    const [left, right] = [points(a), points(b)];
    const at = left.findIndex((point, i) => point !== right[i]);
    return at < 0 ? left.length - right.length : left[at] - (right[at] ?? -1);
  });
}
