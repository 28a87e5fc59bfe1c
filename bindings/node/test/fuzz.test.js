'use strict'
// Struct values of arbitrary bytes: anybody may have written them. Each field is what these bytes say, read in the plainest way, or
// an error that names it. Nothing else is thrown, and nothing is read from beside the value.
//
// ODM_TEST_FUZZ: how many values, for long runs. ODM_TEST_SEED: others; a failure tells the value.

const { test } = require('node:test')
const assert = require('node:assert/strict')
const { DiskMap, struct, u8, u16, u32, u64, i64, u53, f32, f64, bool, str, bytes } = require('opendiskmap')
const { mapPath } = require('./support')

const VALUES = Number(process.env.ODM_TEST_FUZZ ?? 2000)
const SEED = Number(process.env.ODM_TEST_SEED ?? 1)

// struct, a value of it, and how a field is read: its offset, bytes of an element (0: no slice), and what makes an element of them.
const read = {
  u8: (view, at) => view.getUint8(at),
  u16: (view, at) => view.getUint16(at, true),
  u32: (view, at) => view.getUint32(at, true),
  u64: (view, at) => view.getBigUint64(at, true),
  i64: (view, at) => view.getBigInt64(at, true),
  u53: (view, at) => view.getBigUint64(at, true) < 2n ** 53n ? Number(view.getBigUint64(at, true)) : undefined,
  f32: (view, at) => view.getFloat32(at, true),
  f64: (view, at) => view.getFloat64(at, true),
  bool: (view, at) => view.getUint8(at) < 2 ? view.getUint8(at) === 1 : undefined
}
const CASES = [
  {
    codec: struct({ id: u32, name: str, scores: [f64] }),
    value: { id: 7, name: 'Ada', scores: [1, 2.5] },
    size: 20,
    alignment: 4,
    fields: [['id', 0, 0, read.u32], ['name', 4, 1, null], ['scores', 12, 8, read.f64]]
  },
  {
    codec: struct({ on: bool, big: u64, flags: [bool], data: bytes, small: [u16], n: u53 }),
    value: { on: true, big: 1n, flags: [true, false], data: Uint8Array.of(1, 2, 3), small: [1, 2, 3], n: 9 },
    size: 48,
    fields: [['on', 0, 0, read.bool], ['big', 8, 0, read.u64], ['flags', 16, 1, read.bool], ['data', 24, 1, read.u8],
      ['small', 32, 2, read.u16], ['n', 40, 0, read.u53]]
  },
  {
    codec: struct({ a: [u8], b: [u32], c: [u64], d: [i64], e: [u53], f: [f32] }),
    value: { a: [1], b: [2, 3], c: [4n], d: [-5n, 6n], e: [7, 8], f: [9] },
    size: 48,
    fields: [['a', 0, 1, read.u8], ['b', 8, 4, read.u32], ['c', 16, 8, read.u64], ['d', 24, 8, read.i64],
      ['e', 32, 8, read.u53], ['f', 40, 4, read.f32]]
  },
  { codec: struct({ x: f32, on: bool }), value: { x: 1.5, on: true }, size: 8, whole: true, fields: [['x', 0, 0, read.f32], ['on', 4, 0, read.bool]] }
]

let state = SEED
function random (limit) { // mulberry32
  state = (state + 0x6D2B79F5) | 0
  let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
  mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
  return ((mixed ^ (mixed >>> 14)) >>> 0) % limit
}

function hostile ({ codec, value, size }) {
  let encoded = Buffer.from(codec.encode(value))
  if (random(8) === 0) encoded = Buffer.alloc(random(96))
  if (random(6) === 0) encoded = encoded.subarray(0, random(encoded.length + 1))
  if (random(6) === 0) encoded = Buffer.concat([encoded, Buffer.alloc(random(24), random(256))])
  encoded = Buffer.from(encoded)
  for (let left = random(4); left > 0 && encoded.length > 0; left--) encoded[random(encoded.length)] = random(256)
  for (let left = random(3); left > 0 && encoded.length >= size; left--) {
    const words = [0, 1, 8, size, encoded.length - 8, encoded.length, encoded.length + 1, 2 ** 29 + 1, 2 ** 31, 2 ** 32 - 8, 2 ** 32 - 1, random(64)]
    encoded.writeUInt32LE(words[random(words.length)] >>> 0, random(size / 4) * 4)
  }
  return encoded
}

/** What a field of these bytes is, or undefined if they are none of it. */
function expected (encoded, [, offset, unit, element]) {
  const view = new DataView(encoded.buffer, encoded.byteOffset, encoded.length)
  if (unit === 0) return element(view, offset)
  const from = view.getUint32(offset, true)
  const count = view.getUint32(offset + 4, true)
  if (from + count * unit > encoded.length || from % unit !== 0) return undefined
  if (element === null) return encoded.toString('utf8', from, from + count)
  const elements = Array.from({ length: count }, (_, i) => element(view, from + i * unit))
  return elements.includes(undefined) ? undefined : elements
}

function checkField (view, encoded, field) {
  const wanted = expected(encoded, field)
  let have
  try {
    have = view[field[0]]
  } catch (error) {
    assert.equal(wanted, undefined, `${field[0]}: ${error}`)
    assert.match(error.message, new RegExp(`^struct\\.${field[0]}: `))
    assert.ok(error.code === 'ODM_E_CORRUPT' || error instanceof RangeError, error)
    return
  }
  assert.notEqual(wanted, undefined, `${field[0]} was given`)
  assert.deepEqual(Array.isArray(wanted) ? Array.from(have) : have, wanted)
}

function checkValue (fuzzed, encoded, decode) {
  const { size, whole, fields } = fuzzed
  let view
  try {
    view = decode()
  } catch (error) {
    assert.equal(error.code, 'ODM_E_CORRUPT')
    assert.ok(encoded.length < size || (whole && encoded.length > size), error)
    return
  }
  for (const field of fields) checkField(view, encoded, field)
  const all = fields.every((field) => expected(encoded, field) !== undefined)
  if (all) view.toObject()
  else assert.throws(() => view.toObject(), /struct\.\w+: /)
}

test('struct values of arbitrary bytes are read as what they say, or refused by the field\'s name', (t) => {
  const path = mapPath(t)
  const raw = DiskMap.open(path, { key: u32, value: bytes })
  const maps = CASES.map((fuzzed) => DiskMap.open(path, { key: u32, value: fuzzed.codec, schema: null }))
  for (let i = 0; i < VALUES; i++) {
    const which = random(CASES.length)
    const fuzzed = CASES[which]
    const encoded = hostile(fuzzed)
    // Beside the value lies something else.
    const beside = Buffer.concat([Buffer.alloc(8, 0xee), encoded, Buffer.alloc(64, 0xee)])
    const key = random(16)
    raw.set(key, encoded)
    try {
      checkValue(fuzzed, encoded, () => fuzzed.codec.decode(beside.subarray(8, 8 + encoded.length)))
      checkValue(fuzzed, encoded, () => maps[which].get(key))
      maps[which].view(key, (lent) => checkValue(fuzzed, encoded, () => fuzzed.codec.decode(lent)))
    } catch (error) {
      error.message = `${fuzzed.codec.name} of ${encoded.toString('hex')}: ${error.message}`
      throw error
    }
  }
  for (const map of [raw, ...maps]) map.close()
})
