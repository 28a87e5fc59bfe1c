'use strict'
// The encodings: their bytes, their limits, and what they say about what they can not hold.

const { test, describe } = require('node:test')
const assert = require('node:assert/strict')
const odm = require('opendiskmap')
const { DiskMap, u64, u53, str, json, bytes } = odm

const hex = (codec, value) => Buffer.from(codec.encode(value)).toString('hex')

// encoding: [value, its bytes]...
const BYTES = {
  u8: [[0, '00'], [255, 'ff']],
  u16: [[258, '0201'], [65535, 'ffff']],
  u32: [[1, '01000000'], [4294967295, 'ffffffff']],
  u64: [[1n, '0100000000000000'], [18446744073709551615n, 'ffffffffffffffff']],
  i8: [[-1, 'ff'], [-128, '80'], [127, '7f']],
  i16: [[-2, 'feff'], [32767, 'ff7f']],
  i32: [[-2147483648, '00000080']],
  i64: [[-1n, 'ffffffffffffffff'], [-9223372036854775808n, '0000000000000080']],
  u53: [[1, '0100000000000000'], [9007199254740991, 'ffffffffffff1f00']],
  f32: [[1, '0000803f'], [Infinity, '0000807f']],
  f64: [[1, '000000000000f03f'], [-0, '0000000000000080'], [-Infinity, '000000000000f0ff']],
  bool: [[true, '01'], [false, '00']],
  str: [['', ''], ['aé', '61c3a9'], ['€😀', 'e282acf09f9880'], ['\0', '00']],
  bytes: [[new Uint8Array([]), ''], [Uint8Array.of(0, 255), '00ff']],
  json: [[{ a: [1, 'é', null] }, Buffer.from('{"a":[1,"é",null]}').toString('hex')], [0, '30']]
}

describe('bytes', () => {
  for (const [name, cases] of Object.entries(BYTES)) {
    test(name, () => {
      for (const [value, expected] of cases) {
        assert.equal(hex(odm[name], value), expected)
        assert.deepEqual(odm[name].decode(Buffer.from(expected, 'hex')), value)
        const map = new DiskMap([['k', value]], { key: str, value: odm[name] })
        assert.deepEqual(map.get('k'), value)
        assert.deepEqual([...map], [['k', value]])
        assert.deepEqual(map.getMany(['k', 'x']), [value, undefined])
        if (name === 'json') continue
        const keys = new DiskMap([[value, 'v']], { key: odm[name], value: str })
        assert.equal(keys.get(value), 'v')
        // -0 is 0 as a key.
        assert.deepEqual([...keys.keys()], [Object.is(value, -0) ? 0 : value])
      }
    })
  }
})

// encoding: [what it can not hold, class of the error, what its message says]...
const REFUSED = {
  u8: [[256, RangeError, /256 is no u8: it is an integer from 0 to 255/], [-1, RangeError], [1.5, RangeError], [NaN, RangeError],
    ['1', TypeError, /a u8 is a number, not "1"/], [1n, TypeError, /not 1n/], [undefined, TypeError], [null, TypeError]],
  u16: [[65536, RangeError]],
  u32: [[2 ** 32, RangeError]],
  u64: [[2n ** 64n, RangeError, /18446744073709551616n is no u64/], [-1n, RangeError], [1, TypeError, /a bigint such as 1n, not 1/]],
  i8: [[128, RangeError], [-129, RangeError]],
  i32: [[2 ** 31, RangeError]],
  i64: [[2n ** 63n, RangeError], [-(2n ** 63n) - 1n, RangeError]],
  u53: [[2 ** 53, RangeError, /2 \*\* 53 - 1/], [-1, RangeError], [0.5, RangeError], [1n, TypeError]],
  f64: [['1', TypeError], [1n, TypeError]],
  bool: [[1, TypeError, /true or false, not 1/], [undefined, TypeError]],
  str: [[1, TypeError, /a str is a string, not 1/], [undefined, TypeError], [Symbol('s'), TypeError],
    ['\ud800', RangeError, /lone surrogate/], ['x'.repeat(100) + '\udc00', RangeError], ['x'.repeat(40000) + '\udc00', RangeError]],
  bytes: [['x', TypeError, /a Uint8Array, not "x"/], [[1], TypeError, /an object of Array/], [new Float64Array(1), TypeError]],
  json: [[undefined, TypeError], [() => {}, TypeError], [1n, TypeError], [new Uint8Array(2), TypeError, /json can not hold an object of Uint8Array/],
    [{ a: { b: Buffer.from('x') } }, TypeError, /at \.b/], [new ArrayBuffer(1), TypeError],
    [new SharedArrayBuffer(1), TypeError],
    [NaN, RangeError, /json can not hold NaN$/], [{ a: [1, -Infinity] }, RangeError, /-Infinity \(at \[1\]\)/],
    [new Map([[1, 2]]), TypeError, /an object of Map/], [{ a: new Set([1]) }, TypeError, /an object of Set \(at \.a\)/],
    [Promise.resolve(1), TypeError, /an object of Promise/], [[undefined], TypeError, /undefined \(at \[0\]\)/],
    [{ f () {} }, TypeError, /a function \(at \.f\)/], [{ s: Symbol('s') }, TypeError, /at \.s/],
    [{ n: 1n }, TypeError], [{ toJSON: () => ({ x: new Map() }) }, TypeError, /at \.x/],
    [{ toJSON: () => undefined }, TypeError]]
}

describe('refused', () => {
  for (const [name, cases] of Object.entries(REFUSED)) {
    test(name, () => {
      const map = new DiskMap(null, { key: str, value: odm[name] })
      for (const [value, kind, message] of cases) {
        const check = (error) => error instanceof kind && /^ERR_/.test(error.code) &&
          (message === undefined || message.test(error.message))
        assert.throws(() => map.set('k', value), check, `set ${String(value)}`)
        assert.throws(() => map.setMany([['k', value]]), check, `setMany ${String(value)}`)
        assert.throws(() => odm[name].encode(value), check, `encode ${String(value)}`)
        assert.equal(map.size, 0)
      }
    })
  }
  test('a circle is no json', () => {
    const circle = {}
    circle.circle = circle
    const error = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' }
    assert.throws(() => new DiskMap([['k', circle]], { key: str, value: json }), error)
  })

  test('what an update forgot to wait for is no json', () => {
    const map = new DiskMap([['k', 1]])
    assert.throws(() => map.update('k', async (n) => n + 1), { name: 'TypeError', message: /an object of Promise/ })
    assert.equal(map.get('k'), 1)
  })

  test('a typed array whose memory was transferred', () => {
    const gone = new Uint8Array(5)
    const floats = new Float64Array(5)
    structuredClone(0, { transfer: [gone.buffer, floats.buffer] })
    const error = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE', message: /is detached/ }
    const own = { name: 'own', encode: () => gone, decode: (given) => given }
    for (const value of [bytes, own]) assert.throws(() => new DiskMap([['k', gone]], { key: str, value }), error)
    assert.throws(() => new DiskMap(null, { key: bytes, value: str }).get(gone), error)
    assert.throws(() => odm.struct({ data: bytes }).encode({ data: gone }), error)
    assert.throws(() => odm.struct({ list: [odm.f64] }).encode({ list: floats }), error)
  })
})

test('a u53 reads what u64 wrote, up to 2 ** 53 - 1', () => {
  const map = new DiskMap([['small', 7n], ['big', 2n ** 53n]], { key: str, value: u64 })
  assert.equal(u53.name, 'u64')
  assert.equal(u53.decode(u64.encode(map.get('small'))), 7)
  assert.throws(() => u53.decode(u64.encode(map.get('big'))), RangeError)
})

test('json is what JSON.stringify makes of it: undefined properties are left out, toJSON is asked', () => {
  const map = new DiskMap()
  class Point { x = 1 }
  for (const value of [{ a: undefined, b: 1 }, { at: new Date(5) }, [new Point()],
    Object.assign(Object.create(null), { y: 2 }),
    Object.assign(new Map(), { toJSON: () => 'map' }), [null, [], {}, '', false, 0, 1e300]]) {
    assert.deepEqual(map.set('k', value).get('k'), JSON.parse(JSON.stringify(value)))
  }
})

test('a byte array is as long as it is, whatever its `length` says', () => {
  const shadowed = Object.defineProperty(Uint8Array.of(1, 2), 'length', { value: 40 })
  const longer = Object.defineProperty(new Uint8Array(20000).fill(3), 'length', { value: 5 })
  const left = new Uint8Array(64).fill(9)
  const map = new DiskMap([['left', left], ['k', shadowed], ['l', longer]], { key: str, value: bytes })
  assert.deepEqual(map.get('k'), Uint8Array.of(1, 2))
  assert.deepEqual(map.setMany([['k', shadowed]]).get('k'), Uint8Array.of(1, 2))
  assert.deepEqual(map.get('l'), new Uint8Array(20000).fill(3))
  const Data = odm.struct({ data: bytes })
  assert.deepEqual(Data.decode(Data.encode({ data: shadowed })).data, Uint8Array.of(1, 2))
})

test('a value of another size is an error that says so', () => {
  assert.throws(() => u64.decode(new Uint8Array(4)), /a u64 has 8 bytes, but the map holds 4/)
})

test('values and keys of every length come back', () => {
  const map = new DiskMap(null, { key: str, value: str })
  const raw = new DiskMap(null, { key: bytes, value: bytes })
  for (const length of [0, 1, 7, 8, 47, 48, 49, 63, 64, 1000, 5461, 5462, 16383, 16384, 16385, 65535, 65536, 70000, 300000]) {
    for (const letter of ['a', 'é', '漢', '\ufffd']) {
      const text = letter.repeat(length)
      map.set(text, text)
      assert.ok(map.get(text) === text, `${length} × ${letter}`)
      assert.ok(map.has(text))
      assert.deepEqual(map.getMany([text, 'x']), [text, undefined])
      assert.equal(map.compareAndSet(text, text, 'y'), true)
      assert.equal(map.delete(text), true)
    }
    const blob = new Uint8Array(length).fill(length % 251)
    raw.set(blob, blob)
    assert.deepEqual(raw.get(blob), blob)
    assert.equal(raw.view(blob, (seen) => Buffer.compare(seen, blob)), 0)
    assert.deepEqual([...raw], [[blob, blob]])
    raw.clear()
  }
})

test('a key may have 16 MiB less a byte, not more', () => {
  const map = new DiskMap(null, { key: bytes, value: str })
  map.set(new Uint8Array(2 ** 24 - 1), 'longest')
  assert.equal(map.get(new Uint8Array(2 ** 24 - 1)), 'longest')
  assert.throws(() => map.set(new Uint8Array(2 ** 24), 'x'), { code: 'ODM_E_TOO_BIG' })
  assert.throws(() => map.get(new Uint8Array(2 ** 24)), { code: 'ODM_E_TOO_BIG' })
})

test('a value that was read is one\'s own: it outlives later writes and close', () => {
  const map = new DiskMap([['k', Uint8Array.of(1, 2, 3)]], { key: str, value: bytes })
  const kept = map.get('k')
  kept[0] = 9
  assert.deepEqual(map.get('k'), Uint8Array.of(1, 2, 3))
  map.set('k', new Uint8Array(3))
  map.close()
  assert.deepEqual(kept, Uint8Array.of(9, 2, 3))
  assert.equal(Object.getPrototypeOf(kept), Uint8Array.prototype)
})

describe('own encodings', () => {
  const date = {
    name: 'date',
    encode: (value) => odm.f64.encode(value.getTime()),
    decode: (given) => new Date(odm.f64.decode(given))
  }

  test('are used, and their name is in the schema', () => {
    const map = new DiskMap([['now', new Date(5)]], { key: str, value: date })
    assert.equal(map.schema, 'str/date')
    assert.deepEqual(map.get('now'), new Date(5))
    assert.deepEqual([...map.values()], [new Date(5)])
    assert.deepEqual(map.getMany(['now']), [new Date(5)])
    const byDate = new DiskMap([[new Date(5), 'x']], { key: date, value: str })
    assert.equal(byDate.get(new Date(5)), 'x')
  })

  test('are called as methods', () => {
    class Prefixed {
      name = 'prefixed'
      constructor (prefix) { this.prefix = prefix }
      encode (text) { return str.encode(this.prefix + text) }
      decode (given) { return str.decode(given).slice(this.prefix.length) }
    }
    const map = new DiskMap([['k', 'v']], { key: new Prefixed('key:'), value: new Prefixed('value:') })
    assert.equal(map.get('k'), 'v')
    assert.equal(map.view('k', (seen) => str.decode(seen)), 'value:v')
  })

  test('must give a value: undefined would be an absent one', () => {
    const nothing = { name: 'nothing', encode: () => new Uint8Array(1), decode: () => undefined }
    const map = new DiskMap([['k', 1]], { key: str, value: nothing })
    const message = 'decode of nothing must give a value, not undefined'
    for (const call of [() => map.get('k'), () => map.getOrInsert('k', 1), () => map.entry('k'), () => [...map]]) {
      assert.throws(call, { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE', message })
    }
  })

  test('may use the very map they encode for', () => {
    const names = new DiskMap(null, { key: str, value: u53 })
    const interned = {
      name: 'interned',
      encode: (text) => u53.encode(names.getOrInsertComputed(text, () => names.size)),
      decode: (given) => [...names].find(([, n]) => n === u53.decode(given))[0]
    }
    const map = new DiskMap(null, { key: interned, value: interned })
    map.set('alpha', 'beta').setMany([['gamma', 'delta']])
    assert.equal(map.get('alpha'), 'beta')
    assert.deepEqual(map.getMany(['gamma', 'alpha', 'none']), ['delta', 'beta', undefined])
    assert.deepEqual([...map].sort(), [['alpha', 'beta'], ['gamma', 'delta']])
  })

  test('may change another map while they decode', () => {
    const reads = new DiskMap(null, { key: str, value: u53 })
    const counted = { ...date, decode: (given) => reads.increment('reads') && date.decode(given) }
    const map = new DiskMap([['a', new Date(1)]], { key: str, value: counted })
    let calls = 0
    const later = map.update('a', (value) => {
      assert.equal(++calls, 1, 'nobody else has changed it')
      return new Date(value.getTime() + 1)
    })
    assert.deepEqual(later, new Date(2))
    assert.equal(reads.get('reads'), 1)
  })

  test('that are wrong are refused', () => {
    const open = (value) => () => new DiskMap(null, { key: str, value })
    assert.throws(open({ name: 'x' }), /value is no encoding: it needs a name, encode\(value\) and decode\(bytes\)/)
    assert.throws(open({ ...date, name: 'a/b' }), RangeError)
    assert.throws(open({ ...date, name: 'u64' }), /the name of a built-in encoding/)
    assert.throws(open('str'), /value must be an encoding such as str or u64, not "str"/)
    assert.throws(() => new DiskMap([['k', 1]], { key: str, value: { ...date, encode: () => 'text' } }),
      /encode of date must give a Uint8Array, not "text"/)
  })
})
