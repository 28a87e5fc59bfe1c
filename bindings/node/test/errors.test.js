'use strict'
// Exact errors: what is said about a wrong option, a closed map, another schema, a map that is not there.

const { test, describe } = require('node:test')
const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { pathToFileURL } = require('node:url')
const { DiskMap, DiskMapError, StringStringMap, str, u64, u32, u53, bool, bytes, json, struct } = require('opendiskmap')
const { mapPath } = require('./support')

const types = { key: str, value: u64 }

describe('options', () => {
  test('a misspelt one is named, with the right spelling', (t) => {
    const open = (options) => () => DiskMap.open(mapPath(t), options)
    assert.throws(open({ readonly: true }), { message: 'Unknown option "readonly", did you mean "readOnly"?' })
    assert.throws(open({ capcity: 5 }), { message: 'Unknown option "capcity", did you mean "capacity"?' })
    assert.throws(open({ waitms: 5 }), /did you mean "waitMs"/)
    assert.throws(open({ compression: true }), /^TypeError: Unknown option "compression"\. There are: key, value, schema,/)
  })

  test('a wrong type or range is named', (t) => {
    const open = (options) => () => DiskMap.open(mapPath(t), { ...types, ...options })
    assert.throws(open({ readOnly: 1 }), /readOnly must be true or false, not 1/)
    assert.throws(open({ capacity: '5' }), /capacity must be a number, not "5"/)
    assert.throws(open({ capacity: -1 }), RangeError)
    assert.throws(open({ capacity: 1.5 }), RangeError)
    assert.throws(open({ stripes: 3 }), { code: 'ODM_E_INVALID', message: /power of two/ })
    assert.throws(open({ schema: 5 }), /schema must be a string, or null/)
    assert.throws(() => DiskMap.open(mapPath(t), 'str'), /options must be an object, not "str"/)
    assert.throws(() => DiskMap.open(mapPath(t), null), TypeError)
    for (const options of [null, 5, 'x']) {
      const error = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE', message: /options must be an object, not/ }
      assert.throws(() => StringStringMap.open(mapPath(t), options), error)
      assert.throws(() => new StringStringMap(null, options), error)
      assert.throws(() => new DiskMap(null, options), error)
    }
    assert.throws(() => StringStringMap.open(mapPath(t), { readonly: true }), /did you mean "readOnly"/)
    assert.throws(() => DiskMap.open(5, types), /a path must be a string or a file URL, not 5/)
    assert.throws(() => DiskMap.open('', types), RangeError)
    assert.throws(() => DiskMap.open('a\0b', types), RangeError)
    const lone = { name: 'RangeError', code: 'ERR_OUT_OF_RANGE', message: /lone surrogate/ }
    assert.throws(() => DiskMap.open(mapPath(t, 'x\ud800'), types), lone)
    assert.throws(open({ schema: 'x\udc00/y' }), lone)
  })

  test('a file URL is a path', (t) => {
    const where = mapPath(t)
    DiskMap.open(pathToFileURL(where), types).set('a', 1n).close()
    assert.equal(DiskMap.open(where, types).get('a'), 1n)
  })

  test('mustExist, mustCreate, readOnly', (t) => {
    const where = mapPath(t)
    assert.throws(() => DiskMap.open(where, { ...types, mustExist: true }), { code: 'ODM_NOT_FOUND', path: where })
    assert.throws(() => DiskMap.open(where, { ...types, readOnly: true }), { code: 'ODM_NOT_FOUND' })
    const map = DiskMap.open(where, { ...types, mustCreate: true }).set('a', 1n)
    assert.throws(() => DiskMap.open(where, { ...types, mustCreate: true }), { code: 'ODM_EXISTS' })
    const reader = DiskMap.open(where, { ...types, readOnly: true })
    assert.equal(reader.get('a'), 1n)
    assert.throws(() => reader.set('a', 2n), { code: 'ODM_E_READ_ONLY', name: 'DiskMapError', path: where })
    assert.throws(() => reader.delete('a'), { code: 'ODM_E_READ_ONLY' })
    assert.throws(() => reader.clear(), { code: 'ODM_E_READ_ONLY' })
    map.set('a', 3n)
    assert.equal(reader.get('a'), 3n)
  })

  test('the operating system\'s error has its number', () => {
    assert.throws(() => DiskMap.open('/proc/none/map', types), (error) => error instanceof DiskMapError &&
      error.code === 'ODM_E_IO' && error.errno === 2 && error.message.includes('/proc/none/map'))
  })

  test('a directory with other files is left alone', (t) => {
    const where = mapPath(t)
    fs.mkdirSync(where)
    fs.writeFileSync(path.join(where, 'precious.txt'), 'x')
    assert.throws(() => DiskMap.open(where, types), { code: 'ODM_E_INVALID' })
    assert.deepEqual(fs.readdirSync(where), ['precious.txt'])
  })
})

describe('schema', () => {
  test('another one is refused, with both names', (t) => {
    const where = mapPath(t)
    DiskMap.open(where, types).close()
    assert.throws(() => DiskMap.open(where, { key: u32, value: str }),
      { code: 'ODM_E_MISMATCH', message: /"str\/u64".*"u32\/str"/ })
    assert.throws(() => DiskMap.open(where, { value: str }), { code: 'ODM_E_MISMATCH', message: /"str\/u64".*\(not given\)\/str/ })
  })

  test('without types, a map says itself what it holds', (t) => {
    const City = struct({ people: u64, name: str })
    for (const [key, value, k, v] of [[str, u64, 'a', 1n], [u32, json, 1, { x: 1 }], [str, City, 'r', { people: 1n, name: 'Rome' }]]) {
      const where = mapPath(t)
      DiskMap.open(where, { key, value }).set(k, v).close()
      const map = DiskMap.open(where)
      const got = map.get(k)
      assert.deepEqual(got.toObject ? got.toObject() : got, v)
    }
  })

  test('without types, a new map holds str/json', (t) => {
    const map = DiskMap.open(mapPath(t))
    assert.deepEqual(map.set('a', { b: 1 }).get('a'), { b: 1 })
    assert.equal(map.schema, 'str/json')
    assert.equal(new DiskMap([['a', [1]]]).get('a')[0], 1)
  })

  test('u53 opens what u64 made', (t) => {
    const where = mapPath(t)
    DiskMap.open(where, types).set('a', 5n).close()
    assert.equal(DiskMap.open(where, { value: u53 }).get('a'), 5)
  })

  test('an own encoding must be given', (t) => {
    const where = mapPath(t)
    const own = { name: 'own', encode: (text) => Buffer.from(text), decode: (given) => Buffer.from(given).toString() }
    DiskMap.open(where, { key: str, value: own }).set('a', 'b').close()
    assert.throws(() => DiskMap.open(where), { code: 'ODM_E_MISMATCH', message: /"str\/own"/ })
    assert.equal(DiskMap.open(where, { value: own }).get('a'), 'b')
  })

  test('null: none is stored, none is compared', (t) => {
    const where = mapPath(t)
    DiskMap.open(where, { ...types, schema: null }).set('a', 1n).close()
    assert.throws(() => DiskMap.open(where, types), { code: 'ODM_E_MISMATCH' })
    assert.throws(() => DiskMap.open(where), { code: 'ODM_E_MISMATCH', message: /without a schema/ })
    const map = DiskMap.open(where, { ...types, schema: null })
    assert.equal(map.get('a'), 1n)
    assert.equal(map.schema, '')
  })
})

test('a closed map: every method says so', async (t) => {
  const map = DiskMap.open(mapPath(t), types).set('a', 1n)
  const iterator = map.keys()
  iterator.next()
  const entry = map.entry('a')
  map.close()
  map.close() // Once more does no harm.
  assert.equal(map.closed, true)
  const closed = { name: 'DiskMapError', code: 'ODM_CLOSED', message: /the map is closed \(.*map\)/ }
  const calls = {
    get: () => map.get('a'),
    has: () => map.has('a'),
    set: () => map.set('a', 1n),
    delete: () => map.delete('a'),
    clear: () => map.clear(),
    size: () => map.size,
    keys: () => [...map.keys()],
    'a walk begun before': () => iterator.next(),
    entries: () => [...map],
    forEach: () => map.forEach(() => {}),
    getOrInsert: () => map.getOrInsert('a', 1n),
    update: () => map.update('a', (n) => n),
    increment: () => map.increment('a'),
    compareAndSet: () => map.compareAndSet('a', 1n, 2n),
    entry: () => map.entry('a'),
    'an entry taken before': () => entry.andModify((n) => n + 1n),
    getMany: () => map.getMany(['a']),
    setMany: () => map.setMany([['a', 1n]]),
    writeMany: () => map.writeMany([['delete', 'a']]),
    view: () => map.view('a', () => {}),
    stat: () => map.stat(),
    capacity: () => map.capacity,
    loadFactor: () => map.loadFactor,
    schema: () => map.schema
  }
  for (const [name, call] of Object.entries(calls)) assert.throws(call, closed, name)
  for (const name of ['sync', 'compact', 'verify']) await assert.rejects(map[name](), closed, name)
  await assert.rejects(map.backup(mapPath(t)), closed)
})

test('bytes that are none of the encoding: what is wrong, and where', (t) => {
  const where = mapPath(t)
  const Flag = struct({ n: u32, isOn: bool })
  for (const [value, given, message] of [
    [json, Buffer.from('{bad'), /the map holds what is no JSON: .*JSON/], [json, Buffer.from('NaN'), /no JSON/],
    [bool, Uint8Array.of(2), /a bool is the byte 0 or 1, but the map holds 2 there/],
    [u64, Uint8Array.of(1), /a u64 has 8 bytes, but the map holds 1 there/], [Flag, Uint8Array.of(1), /has 8 bytes/]
  ]) {
    const schema = `str/${value.name}`
    const at = `${where}.${value.name[0]}${given.length}`
    DiskMap.open(at, { key: str, value: bytes, schema }).set('k', given).close()
    const map = DiskMap.open(at, { key: str, value, schema })
    for (const [operation, call] of Object.entries({
      get: () => map.get('k'),
      getMany: () => map.getMany(['k']),
      walk: () => [...map.values()],
      entry: () => map.entry('k'),
      update: () => map.update('k', () => assert.fail()),
      getOrInsert: () => map.getOrInsert('k', null)
    })) {
      assert.throws(call, (error) => error instanceof DiskMapError && error.code === 'ODM_E_CORRUPT' &&
        error.path === at && message.test(error.message) && error.message.startsWith(operation.slice(0, 3)) &&
        error.message.endsWith(` (${at})`), operation)
    }
    assert.throws(() => value.decode(given), { name: 'DiskMapError', code: 'ODM_E_CORRUPT', message })
  }
  assert.throws(() => Flag.decode(Uint8Array.of(1, 0, 0, 0, 7, 0, 0, 0)).isOn,
    { code: 'ODM_E_CORRUPT', message: /struct\.isOn: a bool is/ })
})

test('damaged files are an error, not a crash', (t) => {
  const where = mapPath(t)
  DiskMap.open(where, types).set('a', 1n).close()
  fs.writeFileSync(path.join(where, 'meta'), Buffer.alloc(8192, 0x55))
  assert.throws(() => DiskMap.open(where, types), (error) => error instanceof DiskMapError && error.message.includes(where))
})
