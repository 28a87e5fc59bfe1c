'use strict'
// The struct encoding: C's layout byte for byte, views that read in place, and damage that is told.

const { test, describe } = require('node:test')
const assert = require('node:assert/strict')
const { DiskMap, struct, u8, u16, u32, u64, i8, u53, f32, f64, bool, str, bytes, json } = require('opendiskmap')
const { mapPath } = require('./support')

const hex = (codec, value) => Buffer.from(codec.encode(value)).toString('hex')
const Player = struct({ id: u32, name: str, scores: [f64] })
const ada = { id: 7, name: 'Ada', scores: [1, 2.5] }

describe('layout', () => {
  test('fields are aligned as in C, padding is zero, the size is a multiple of the alignment', () => {
    assert.equal(hex(struct({ a: u8, b: u64, c: u16 }), { a: 1, b: 2n, c: 3 }),
      '01' + '00'.repeat(7) + '0200000000000000' + '0300' + '00'.repeat(6))
    assert.equal(hex(struct({ a: u16, b: u8 }), { a: 1, b: 2 }), '01000200')
    assert.equal(hex(struct({ a: bool, b: f32, c: i8 }), { a: true, b: 1, c: -1 }), '010000000000803fff000000')
  })

  test('a slice is {offset, count} from the start of the value; payloads are 8-aligned, in order', () => {
    // id 7 | name {24, 3} | scores {32, 2} | pad | "Ada" pad | 1.0 2.5
    assert.equal(hex(Player, ada),
      '07000000' + '1800000003000000' + '2000000002000000' + '00000000' + '4164610000000000' +
      '000000000000f03f' + '0000000000000440')
  })

  test('lists of every kind of number, and of bool', () => {
    const All = struct({ a: [u8], b: [u16], c: [u64], d: [bool], e: [u53], f: [f32] })
    const value = { a: [1, 2, 3], b: [4], c: [5n, 6n], d: [true, false], e: [7], f: [] }
    assert.deepEqual(All.decode(All.encode(value)).toObject(), value)
    assert.equal(All.name, 'struct{a:[u8],b:[u16],c:[u64],d:[bool],e:[u64],f:[f32]}')
  })

  test('the name is the schema', () => {
    assert.equal(Player.name, 'struct{id:u32,name:str,scores:[f64]}')
    assert.equal(new DiskMap(null, { key: u64, value: Player }).schema, 'u64/struct{id:u32,name:str,scores:[f64]}')
  })
})

describe('views', () => {
  const map = new DiskMap([[1n, ada]], { key: u64, value: Player })

  test('read field by field', () => {
    const view = map.get(1n)
    assert.equal(view.id, 7)
    assert.equal(view.name, 'Ada')
    assert.ok(view.scores instanceof Float64Array)
    assert.deepEqual([...view.scores], [1, 2.5])
  })

  test('toObject, JSON and inspect give a plain object', () => {
    const view = map.get(1n)
    assert.deepEqual(view.toObject(), ada)
    assert.equal(JSON.stringify(view), '{"id":7,"name":"Ada","scores":[1,2.5]}')
    assert.match(require('node:util').inspect(view), /name: 'Ada'/)
  })

  test('a view may be stored again', () => {
    map.set(2n, map.get(1n))
    assert.deepEqual(map.get(2n).toObject(), ada)
  })

  test('come from every way of reading', () => {
    assert.deepEqual(map.getMany([1n, 9n]).map((view) => view?.name), ['Ada', undefined])
    assert.deepEqual([...map.values()].map((view) => view.name), ['Ada', 'Ada'])
    assert.equal(map.view(1n, (lent) => Player.decode(lent).scores[1]), 2.5)
    assert.equal(map.update(1n, (view) => ({ ...view.toObject(), id: 8 })).id, 8)
    assert.equal(map.get(1n).id, 8)
  })

  test('decode reads where the bytes lie, aligned or not', () => {
    const encoded = Player.encode(ada)
    assert.equal(Player.decode(encoded).scores.buffer, encoded.buffer)
    const shifted = new Uint8Array(encoded.length + 1)
    shifted.set(encoded, 1)
    assert.deepEqual(Player.decode(shifted.subarray(1)).toObject(), ada)
  })
})

describe('refused', () => {
  const set = (value) => () => Player.encode(value)
  test('values that do not fit name the field', () => {
    assert.throws(set({ id: 7, name: 'Ada' }), /struct\.scores is missing/)
    assert.throws(set({ ...ada, nmae: 'x' }), /has no field "nmae"/)
    assert.throws(set({ ...ada, id: -1 }), /struct\.id: -1 is no u32/)
    assert.throws(set({ ...ada, name: 5 }), /struct\.name: a str is a string, not 5/)
    assert.throws(set({ ...ada, scores: [1, 'x'] }), /struct\.scores: an f64 is a number, not "x"/)
    assert.throws(set({ ...ada, scores: 5 }), /struct\.scores: a list is an Array or a typed array/)
    assert.throws(set(null), /is an object, not null/)
  })

  test('descriptions that can not be', () => {
    assert.throws(() => struct({}), /at least one field/)
    assert.throws(() => struct({ a: json }), /struct\.a can not be json/)
    assert.throws(() => struct({ a: [str] }), /can not be a list of str/)
    assert.throws(() => struct({ a: 'u32' }), /must be an encoding such as u32/)
    assert.throws(() => struct({ 'a b': u32 }), /"a b" is no name for a field/)
    assert.throws(() => struct(u32.name), TypeError)
  })

  test('names that JavaScript has taken are named, and the layout stays open under another one', (t) => {
    for (const name of ['toObject', 'toJSON', 'constructor', '__proto__']) {
      const message = new RegExp(`struct\\.${name}: a field can not be called ${name}`)
      assert.throws(() => struct({ id: u32, [name]: u32 }), { name: 'RangeError', message })

      // As a program in another language makes it.
      const path = mapPath(t)
      const schema = `str/struct{id:u32,${name}:u32}`
      const types = { key: str, value: struct({ id: u32, other: u32 }), schema }
      DiskMap.open(path, types).set('a', { id: 1, other: 2 }).close()
      assert.throws(() => DiskMap.open(path), (error) => error.code === 'ODM_E_MISMATCH' &&
        error.message.includes(`can not be called ${name}`) && error.message.includes(`schema: "${schema}"`))
      assert.equal(DiskMap.open(path, types).get('a').other, 2)
    }
    assert.throws(() => struct({ id: u32, __proto__: u32 }), /struct\.__proto__: a field can not be called __proto__/)
    assert.throws(() => struct({ id: u32, __proto__: [u32] }), /struct\.__proto__: a field can not be called __proto__/)
  })
})

describe('damage is told, never followed', () => {
  test('a value that is too short', () => {
    assert.throws(() => Player.decode(new Uint8Array(19)), { code: 'ODM_E_CORRUPT', message: /at least 20 bytes/ })
    assert.throws(() => struct({ a: u32 }).decode(new Uint8Array(8)), { code: 'ODM_E_CORRUPT' })
  })

  test('a slice that points outside names its field', () => {
    for (const [offset, count] of [[24, 4096], [4294967295, 1], [4096, 1], [0, 4294967295]]) {
      const encoded = Player.encode(ada)
      new DataView(encoded.buffer).setUint32(12, offset, true)
      new DataView(encoded.buffer).setUint32(16, count, true)
      const view = Player.decode(encoded)
      assert.throws(() => view.scores, { code: 'ODM_E_CORRUPT', message: /struct\.scores/ })
      assert.equal(view.name, 'Ada')
    }
  })

  test('a bool that is neither 0 nor 1 names its field', () => {
    const Flags = struct({ on: bool, more: [bool] })
    const encoded = Flags.encode({ on: true, more: [false, true] })
    for (const [at, name] of [[0, 'on'], [encoded.length - 1, 'more']]) {
      const changed = encoded.slice()
      changed[at] = 2
      assert.throws(() => Flags.decode(changed)[name],
        { code: 'ODM_E_CORRUPT', message: new RegExp(`struct\\.${name}: a bool is the byte 0 or 1`) })
    }
    assert.throws(() => bool.decode(Uint8Array.of(2)), { code: 'ODM_E_CORRUPT' })
  })

  test('a list that is not aligned names its field', () => {
    const encoded = Player.encode(ada)
    new DataView(encoded.buffer).setUint32(12, 33, true)
    new DataView(encoded.buffer).setUint32(16, 1, true)
    assert.throws(() => Player.decode(encoded).scores, /struct\.scores/)
  })
})

test('bytes fields', () => {
  const File = struct({ mode: u16, data: bytes })
  const value = { mode: 420, data: Uint8Array.of(1, 2, 3) }
  assert.deepEqual(File.decode(File.encode(value)).toObject(), value)
})
