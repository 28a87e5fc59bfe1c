'use strict'
// interop.js - the Node.js side of the tests between languages. Its commands are those of interop.c.
//
//     node interop.js vectors|write|read VECTORS [DIR]
//     node interop.js live MAP INDEX ALL N

const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const odm = require('opendiskmap')

const { DiskMap, struct, u8, u16, u32, u64, u53, i8, i16, i32, i64, f32, f64, bool, str, bytes } = odm

// As a program declares them; the names that come of it are compared with those of the vectors.
const structs = [
  struct({ id: u32, name: str, scores: [f64] }),
  struct({ scores: [f64], name: str, id: u32 }),
  struct({ k1: u8, k2: u16, k3: bool, k4: u32, k5: i8, k6: f64, k7: u8 }),
  struct({ yes: bool }),
  struct({ kind: u8, text: str }),
  struct({ head: u16, blob: bytes, tail: u64 }),
  struct({
    flag: bool,
    b1: u8,
    b2: u16,
    b4: u32,
    b8: u64,
    s1: i8,
    s2: i16,
    s4: i32,
    s8: i64,
    half: f32,
    full: f64,
    text: str,
    blob: bytes
  }),
  struct({
    f1: [bool],
    u1: [u8],
    u2: [u16],
    u4: [u32],
    u8: [u64],
    i1: [i8],
    i2: [i16],
    i4: [i32],
    i8: [i64],
    r4: [f32],
    r8: [f64]
  })
]

function codecOf (type) {
  const codec = type.startsWith('struct{') ? structs.find(({ name }) => name === type) : odm[type]
  assert.ok(codec !== undefined, `no encoding here is a ${type}`)
  return codec
}

// ---- values --------------------------------------------------------------------------------------------------------------

function load (file) {
  return JSON.parse(fs.readFileSync(file, 'utf8'))
}

// Bytes as the vectors give them: hexadecimal, or {repeat, count}.
function bytesOf (given) {
  if (typeof given === 'string') return Uint8Array.from(Buffer.from(given, 'hex'))
  return bytesOf(given.repeat.repeat(given.count))
}

const floats = { nan: NaN, inf: Infinity, '-inf': -Infinity }

// The JavaScript value of one that the vectors describe.
function valueOf (type, given) {
  if (type === 'json' || type === 'bool') return given
  if (type === 'str') return typeof given === 'string' ? given : given.repeat.repeat(given.count)
  if (type === 'bytes') return bytesOf(given)
  if (type.startsWith('[')) return given.map((element) => valueOf(type.slice(1, -1), element))
  if (type.startsWith('struct{')) {
    return Object.fromEntries(type.slice(7, -1).split(',').map((part) => {
      const [name, kind] = part.split(':')
      return [name, valueOf(kind, given[name])]
    }))
  }
  if (type === 'u64' || type === 'i64') return BigInt(given)
  return floats[given] ?? Number(given)
}

// What was decoded, with every field of a view read.
function plain (type, value) {
  return type.startsWith('struct{') ? value.toObject() : value
}

// Strictly equal: NaN is NaN, 0 is not -0. With a message that is no dump of 64 KiB.
function expectSame (found, wanted, what) {
  try {
    assert.deepStrictEqual(found, wanted)
  } catch (error) {
    assert.fail(`${what}: ${String(error.message).slice(0, 400)}`)
  }
}

// ---- vectors ---------------------------------------------------------------------------------------------------------------

function expectRefused (type, codec, { name, field, bytes: given }) {
  let message
  try {
    plain(type, codec.decode(bytesOf(given)))
  } catch (error) {
    message = error.message
  }
  assert.ok(message !== undefined, `${type}, ${name}: is not refused`)
  if (field === null) return
  for (const part of type.slice(7, -1).split(',')) {
    const [other] = part.split(':')
    assert.equal(new RegExp(`\\b${other}\\b`).test(message), other === field,
      `${type}, ${name}: '${message}' does not name ${field} alone`)
  }
}

function vectors (file) {
  let count = 0
  for (const { type, schema, values, read_only: readOnly, bad } of load(file)) {
    const codec = codecOf(type)
    assert.equal(codec.name, schema)
    for (const { name, value: given, bytes: bytesGiven } of values) {
      const value = valueOf(type, given)
      const encoded = codec.encode(value)
      expectSame(plain(type, codec.decode(encoded)), value, `${type}, ${name}: does not come back`)
      if (type !== 'json' && !Number.isNaN(value)) expectSame(encoded, bytesOf(bytesGiven), `${type}, ${name}: bytes`)
    }
    for (const { name, value, bytes: given } of [...values, ...readOnly]) {
      expectSame(plain(type, codec.decode(bytesOf(given))), valueOf(type, value), `${type}, ${name}: is read`)
    }
    for (const vector of bad) expectRefused(type, codec, vector)
    count += values.length + readOnly.length + bad.length
  }
  console.log(`Node.js: ${count} vectors`)
}

// ---- maps --------------------------------------------------------------------------------------------------------------------

function open (directory, number, role, type, options) {
  const codec = codecOf(type)
  const types = role === 'keys' ? { key: codec, value: str } : { key: str, value: codec }
  return DiskMap.open(path.join(directory, `${number}-${role}`), { ...types, ...options })
}

function writeMaps (file, directory) {
  fs.mkdirSync(directory, { recursive: true })
  load(file).forEach(({ type, values }, number) => {
    const byName = open(directory, number, 'values', type, { mustCreate: true })
    for (const { name, value } of values) byName.set(name, valueOf(type, value))
    byName.close()
    if (type === 'json') return
    const byKey = open(directory, number, 'keys', type, { mustCreate: true })
    for (const { name, value } of values) byKey.set(valueOf(type, value), name)
    byKey.close()
  })
}

// Another schema is refused, and the message shows both.
function expectMismatch (directory, number, schema) {
  assert.throws(() => DiskMap.open(path.join(directory, `${number}-values`), { key: u16, value: bytes }), (error) => {
    assert.equal(error.code, 'ODM_E_MISMATCH')
    assert.ok(error.message.includes('u16/bytes') && error.message.includes(schema.slice(0, 40)), error.message)
    return true
  })
}

function readValues ({ type, values }, directory, number) {
  const map = open(directory, number, 'values', type, { readOnly: true })
  const wanted = new Map(values.map(({ name, value }) => [name, valueOf(type, value)]))
  const where = `${type} in ${directory}/${number}`
  for (const [name, value] of wanted) expectSame(plain(type, map.get(name)), value, `${where}, ${name}`)
  for (const [name, value] of map) expectSame(plain(type, value), wanted.get(name), `${where}, ${name} in a walk`)
  assert.equal(map.size, values.length, where)
  map.close()
}

function readKeys ({ type, values }, directory, number) {
  const map = open(directory, number, 'keys', type, { readOnly: true })
  const hex = (given) => Buffer.from(bytesOf(given)).toString('hex')
  const names = new Map(values.map((vector) => [hex(vector.key ?? vector.bytes), vector.name])) // which was put last
  for (const vector of values) {
    assert.equal(map.get(valueOf(type, vector.value)), names.get(hex(vector.key ?? vector.bytes)),
      `${type} in ${directory}/${number}, key ${vector.name}`)
  }
  assert.equal(map.size, names.size)
  map.close()
}

function readMaps (file, directory) {
  load(file).forEach((vectorsOfType, number) => {
    expectMismatch(directory, number, `str/${vectorsOfType.schema}`)
    readValues(vectorsOfType, directory, number)
    if (vectorsOfType.type !== 'json') readKeys(vectorsOfType, directory, number)
  })
}

// ---- live ----------------------------------------------------------------------------------------------------------------------

const COUNTERS = 4

// Adds one in each way that the binding has.
function addOne (map, key, way) {
  if (way === 0) {
    map.increment(key)
  } else if (way === 1) {
    map.update(key, (number = 0) => number + 1)
  } else {
    for (let done = false; !done;) {
      const number = map.get(key)
      done = map.compareAndSet(key, number, (number ?? 0) + 1)
    }
  }
}

// Waits until all processes have come here.
async function meet (map, key, all) {
  addOne(map, key, 0)
  while (map.get(key) !== all) await new Promise((resolve) => setTimeout(resolve, 1))
}

async function live (file, index, all, n) {
  const map = DiskMap.open(file, { key: str, value: u53 })
  await meet(map, 'ready', all)
  for (let i = 1; i <= n; i++) {
    addOne(map, `shared ${i % COUNTERS}`, i % 3)
    const own = `own ${index} ${i}`
    map.set(own, i * (index + 1))
    if (i % 3 === 0) assert.ok(map.delete(own))
  }
  await meet(map, 'written', all)
  for (let i = 0; i < COUNTERS; i++) assert.equal(map.get(`shared ${i}`), all * n / COUNTERS)
  for (let other = 0; other < all; other++) {
    for (let i = 1; i <= n; i++) {
      assert.equal(map.get(`own ${other} ${i}`), i % 3 === 0 ? undefined : i * (other + 1), `own ${other} ${i}`)
    }
  }
  assert.equal(map.size, COUNTERS + 2 + all * (n - n / 3))
  const report = await map.verify()
  assert.equal(report.badRecords + report.badSlots, 0)
  map.close()
}

async function main ([command, ...rest]) {
  const commands = { vectors: [vectors, 1], write: [writeMaps, 2], read: [readMaps, 2], live: [live, 4] }
  const [run, count] = commands[command] ?? []
  assert.equal(rest.length, count, 'usage: interop.js vectors|write|read VECTORS [DIR], or live MAP INDEX ALL N')
  if (run === live) await live(rest[0], ...rest.slice(1).map(Number))
  else run(...rest)
}

main(process.argv.slice(2)).catch((error) => {
  console.error(`FAILED (Node.js): ${error.stack}`)
  process.exit(1)
})
