'use strict'
// What a DiskMap can do beyond Map: entries, updates, batches, positions, views.

const { test, describe } = require('node:test')
const assert = require('node:assert/strict')
const {
  DiskMap, U64StringMap, StringU64Map, StringStringMap, struct, str, u8, u32, u64, i64, f32, f64, bool, json, bytes
} = require('opendiskmap')
const { mapPath } = require('./support')

const counters = (entries) => new DiskMap(entries, { key: str, value: u64 })

describe('insert if absent', () => {
  test('getOrInsert', () => {
    const map = counters([['a', 1n]])
    assert.equal(map.getOrInsert('a', 9n), 1n)
    assert.equal(map.getOrInsert('b', 2n), 2n)
    assert.deepEqual([...map].sort(), [['a', 1n], ['b', 2n]])
  })

  test('getOrInsertComputed computes only if absent, from the key', () => {
    const map = new DiskMap([['a', 'A']], { key: str, value: str })
    assert.equal(map.getOrInsertComputed('a', () => assert.fail()), 'A')
    assert.equal(map.getOrInsertComputed('b', (key) => key.toUpperCase()), 'B')
    assert.throws(() => map.getOrInsertComputed('c', 'C'), TypeError)
  })

  test('whoever is faster wins: the value in the map is given', () => {
    const map = counters()
    assert.equal(map.getOrInsertComputed('a', () => {
      map.set('a', 1n)
      return 2n
    }), 1n)
  })
})

test('what is inserted is given as get gives it', () => {
  const Pair = struct({ n: u32, name: str })
  const own = { name: 'own', encode: (n) => u32.encode(n), decode: (given) => ({ n: u32.decode(given) }) }
  for (const [value, given] of [
    [Pair, { n: 1, name: 'x' }], [f32, 0.1], [json, { at: new Date(5) }], [bytes, Uint8Array.of(1, 2)],
    [bytes, Buffer.from('abc')], [bytes, new Uint8Array(20000)], [u32, -0], [own, 5], [str, 'text'],
    [str, 'é'.repeat(20000)], [bool, true], [u64, 7n]
  ]) {
    const map = new DiskMap(null, { key: str, value })
    const plain = (value) => value?.toObject?.() ?? value
    const got = {
      getOrInsert: map.getOrInsert('a', given),
      getOrInsertComputed: map.getOrInsertComputed('b', () => given),
      orInsert: map.entry('c').orInsert(given),
      orInsertWith: map.entry('d').orInsertWith(() => given),
      andModify: map.set('e', given).entry('e').andModify(() => given).value
    }
    for (const [name, one] of Object.entries(got)) {
      assert.deepEqual(plain(one), plain(map.get('a')), `${name} of ${value.name}`)
      assert.equal(Object.getPrototypeOf(one), Object.getPrototypeOf(map.get('a')), `${name} of ${value.name}`)
      if (typeof given === 'object') assert.notEqual(one, given)
    }
  }
  const floats = new DiskMap(null, { key: str, value: f32 })
  assert.equal(floats.increment('a', 0.1), Math.fround(0.1))
  assert.equal(floats.increment('a', 0.1), floats.get('a'))
})

describe('entry', () => {
  test('vacant and occupied', () => {
    const map = counters([['a', 1n]])
    assert.equal(map.entry('x').vacant, true)
    assert.equal(map.entry('x').value, undefined)
    assert.equal(map.entry('a').vacant, false)
    assert.equal(map.entry('a').value, 1n)
    assert.equal(map.entry('a').key, 'a')
  })

  test('orInsert, orInsertWith, andModify', () => {
    const map = counters([['a', 1n]])
    assert.equal(map.entry('a').orInsert(5n), 1n)
    assert.equal(map.entry('b').orInsert(5n), 5n)
    assert.equal(map.entry('c').orInsertWith((key) => BigInt(key.length)), 1n)
    assert.equal(map.entry('a').andModify((n) => n + 10n).orInsert(0n), 11n)
    assert.equal(map.entry('d').andModify(() => assert.fail()).orInsert(4n), 4n)
    assert.equal(map.entry('a').andModify((n) => n * 2n).andModify((n) => n + 1n).value, 23n)
    assert.deepEqual([...map].sort(), [['a', 23n], ['b', 5n], ['c', 1n], ['d', 4n]])
  })

  test('keeps the key it was made with', () => {
    const own = { name: 'own', encode: ({ n }) => u32.encode(n), decode: (given) => ({ n: u32.decode(given) }) }
    for (const [key, given, change] of [
      [bytes, Uint8Array.of(1), (k) => { k[0] = 2 }], [json, { n: 1 }, (k) => { k.n = 2 }],
      [own, { n: 1 }, (k) => { k.n = 2 }], [struct({ n: u32 }), { n: 1 }, (k) => { k.n = 2 }]
    ]) {
      const map = new DiskMap(null, { key, value: u32 })
      const entry = map.entry(given)
      const before = Buffer.from(key.encode(given))
      change(given)
      entry.orInsert(7)
      assert.equal(map.get(given), undefined)
      assert.deepEqual(Buffer.from(key.encode(entry.key)), before)
      assert.equal(map.get(entry.key), 7)
    }
    assert.throws(() => new DiskMap(null, { key: bytes, value: u32 }).entry(null), { code: 'ERR_INVALID_ARG_TYPE' })
  })

  test('a change in between is read again', () => {
    const map = counters([['a', 1n]])
    const entry = map.entry('a')
    map.set('a', 100n)
    assert.equal(entry.andModify((n) => n + 1n).value, 101n)
    const vacant = map.entry('b')
    map.set('b', 7n)
    assert.equal(vacant.orInsert(1n), 7n)
    const gone = map.entry('b')
    map.delete('b')
    assert.equal(gone.andModify((n) => n + 1n).vacant, true)
    assert.equal(map.has('b'), false)
    const own = map.entry('a').andModify((n) => n + 1n)
    map.delete('a')
    assert.equal(own.andModify((n) => n + 1n).vacant, true, 'what was removed does not come back')
    assert.equal(map.has('a'), false)
  })
})

describe('update', () => {
  test('changes, inserts, removes', () => {
    const map = counters([['a', 1n]])
    assert.equal(map.update('a', (n) => n + 1n), 2n)
    assert.equal(map.update('b', (n) => n ?? 9n), 9n)
    assert.equal(map.update('a', () => undefined), undefined)
    assert.equal(map.update('x', () => undefined), undefined)
    assert.deepEqual([...map], [['b', 9n]])
  })

  test('asks again if somebody was faster', () => {
    const map = counters([['a', 1n]])
    let calls = 0
    const change = (n) => {
      if (calls++ === 0) map.set('a', 50n)
      return n + 1n
    }
    assert.equal(map.update('a', change), 51n)
    assert.equal(calls, 2)
  })
})

describe('increment', () => {
  test('bigint and number', () => {
    const map = counters()
    assert.equal(map.increment('a'), 1n)
    assert.equal(map.increment('a', 41n), 42n)
    const signed = new DiskMap(null, { key: str, value: i64 })
    assert.equal(signed.increment('a', -5n), -5n)
    const plain = new DiskMap(null, { key: str, value: f64 })
    assert.equal(plain.increment('a', 0.5), 0.5)
    assert.equal(plain.increment('a'), 1.5)
  })

  test('an overflow changes nothing', () => {
    const map = new DiskMap([['a', 255]], { key: str, value: u8 })
    assert.throws(() => map.increment('a'), /256 is no u8/)
    assert.equal(map.get('a'), 255)
  })

  test('only of numbers, by a number of the same kind', () => {
    assert.throws(() => new DiskMap(null, { key: str, value: str }).increment('a'), /holds str/)
    assert.throws(() => counters().increment('a', 1), /takes a bigint, not 1/)
    assert.throws(() => new DiskMap(null, { key: str, value: u32 }).increment('a', 1n), /takes a number, not 1n/)
  })
})

test('compareAndSet', () => {
  for (const [value, a, b, c] of [[u64, 1n, 2n, 3n], [str, 'a', 'b', 'c'], [json, [1], { x: 2 }, null]]) {
    const map = new DiskMap([['k', a]], { key: str, value })
    assert.equal(map.compareAndSet('k', b, c), false)
    assert.equal(map.compareAndSet('k', a, b), true)
    assert.deepEqual(map.get('k'), b)
    assert.equal(map.compareAndSet('k', undefined, c), false, 'undefined expects it to be absent')
    assert.equal(map.compareAndSet('new', undefined, c), true)
    assert.equal(map.compareAndSet('new', c, undefined), true, 'undefined removes')
    assert.equal(map.has('new'), false)
    assert.equal(map.compareAndSet('new', c, undefined), false)
    assert.equal(map.compareAndSet('new', undefined, undefined), true)
    assert.equal(map.compareAndSet('k', undefined, undefined), false)
  }
})

describe('many keys', () => {
  const many = Array.from({ length: 3000 }, (_, i) => [`key ${i}`, `value ${i}`])

  test('setMany and getMany, of any iterable', () => {
    const map = new DiskMap(null, { key: str, value: str })
    assert.equal(map.setMany(new Map(many)), map)
    assert.equal(map.size, many.length)
    const asked = [...many.keys()].reverse().map((i) => `key ${i * 2}`)
    assert.deepEqual(map.getMany(new Set(asked)), asked.map((key) => map.get(key)))
    assert.deepEqual(map.getMany([]), [])
    assert.deepEqual(map.getMany(['none']), [undefined])
  })

  test('values too long for one call', () => {
    const map = new DiskMap(null, { key: u32, value: bytes })
    const value = new Uint8Array(20 * 1024 * 1024)
    for (let i = 0; i < 5; i++) map.set(i, value.fill(i))
    assert.deepEqual(map.getMany([0, 1, 9, 2, 3, 4]).map((v) => v?.[v.length - 1]), [0, 1, undefined, 2, 3, 4])
    assert.deepEqual([...map].map(([k, v]) => v[0] === k && v.length === value.length), Array(5).fill(true))
  })

  test('writeMany tells the outcome of each', () => {
    const map = new DiskMap([['there', 'x']], { key: str, value: str })
    assert.deepEqual(map.writeMany([
      ['set', 'a', '1'], ['set', 'a', '2'], ['insert', 'a', '3'], ['insert', 'b', '4'],
      ['delete', 'there'], ['delete', 'there'], ['insert', 'there', 'again']
    ]), [true, true, false, true, true, false, true])
    assert.deepEqual([...map].sort(), [['a', '2'], ['b', '4'], ['there', 'again']])
    assert.throws(() => map.writeMany([['put', 'a', 'b']]), /a write is 'set', 'insert' or 'delete', not "put"/)
    assert.throws(() => map.writeMany([['constructor', 'a', 'b']]), /not "constructor"/)
  })

  test('what comes before a wrong one is written, and the error says how many', () => {
    const map = new DiskMap(null, { key: str, value: str })
    const writes = function * () {
      yield * many.map(([key, value]) => ['set', key, value])
      yield ['set', 'wrong', 5]
    }
    assert.throws(() => map.writeMany(writes()), (error) => error instanceof TypeError && error.done === many.length)
    assert.equal(map.size, many.length)
    assert.equal(map.has('wrong'), false)
    assert.throws(() => map.setMany([['x', '1'], 5, ['y', '2']]), (error) => error.done === 1)
    assert.throws(() => map.setMany((function * () {
      yield ['z', '1']
      throw new Error('mine')
    })()), /mine/)
    assert.deepEqual([map.has('x'), map.has('y'), map.has('z')], [true, false, true])
  })

  test('a value of 4 GiB is refused, and what comes before it is written', () => {
    const map = new DiskMap(null, { key: str, value: bytes })
    const tooBig = new Uint8Array(2 ** 32)
    assert.throws(() => map.set('k', tooBig), { code: 'ODM_E_TOO_BIG' })
    assert.throws(() => map.setMany([['a', Uint8Array.of(1)], ['k', tooBig], ['b', Uint8Array.of(2)]]),
      { name: 'DiskMapError', code: 'ODM_E_TOO_BIG', done: 1 })
    assert.throws(() => map.setMany([['k', tooBig]]),
      { code: 'ODM_E_TOO_BIG', done: 0, message: /^setMany: .* \(in memory\)$/ })
    assert.throws(() => map.writeMany([['set', 'c', Uint8Array.of(3)], ['insert', 'k', tooBig]]),
      { code: 'ODM_E_TOO_BIG', done: 1 })
    assert.throws(() => new DiskMap(null, { key: bytes, value: str }).getMany([tooBig]), { code: 'ODM_E_TOO_BIG' })
    assert.deepEqual([...map.keys()].sort(), ['a', 'c'])
  })

  test('may be used within one another', () => {
    const map = new DiskMap(many, { key: str, value: str })
    const nested = function * () {
      for (let i = 0; i < 600; i++) yield map.getMany([`key ${i}`])[0].replace('value', 'key')
    }
    assert.deepEqual(map.getMany(nested()), many.slice(0, 600).map(([, value]) => value))
  })
})

describe('walks', () => {
  const filled = (count) => new DiskMap(Array.from({ length: count }, (_, i) => [i, i]), { key: u32, value: u32 })

  test('every entry comes exactly once', () => {
    const map = filled(20000)
    assert.deepEqual([...map.keys()].sort((a, b) => a - b), [...Array(20000).keys()])
  })

  test('a walk goes on from a position, in another handle too', (t) => {
    const path = mapPath(t)
    const map = DiskMap.open(path, { key: u32, value: u32 }).setMany([...Array(20000).keys()].map((i) => [i, i]))
    const seen = new Set()
    const walk = map.keys()
    assert.equal(walk.position, 0n)
    for (const key of walk) {
      seen.add(key)
      if (seen.size === 7000) break
    }
    const { position } = walk
    const other = DiskMap.open(path, { key: u32, value: u32 })
    let came = 0
    for (const key of other.keys({ from: position })) {
      seen.add(key)
      came++
    }
    assert.equal(seen.size, 20000, 'none is missed')
    assert.ok(came < 20000, 'it does not begin anew')
    assert.deepEqual([...map.keys({ from: 2n ** 64n - 1n })], [])
  })

  test('a walk that is over stands at the end, one that was left where it was', () => {
    const map = filled(20000)
    const walk = map.keys()
    assert.equal([...walk].length, 20000)
    assert.equal(walk.position, 2n ** 64n - 1n)
    walk.return()
    assert.equal(walk.position, 2n ** 64n - 1n)

    const leave = {
      break: (walk) => {
        let left = 9000
        for (const key of walk) if (--left === 0) return key // leaves the loop as break does
      },
      return: (walk) => walk.return(),
      'return after some': (walk) => walk.next() && walk.return(),
      throw: (walk) => assert.throws(() => { for (const key of walk) throw new Error(String(key)) }),
      close: (walk) => {
        walk.next()
        walk.handle.close()
        assert.throws(() => walk.next(), { code: 'ODM_CLOSED' })
      }
    }
    for (const [name, how] of Object.entries(leave)) {
      const handle = name === 'close' ? filled(20000) : map
      const seen = new Set()
      const walk = handle.keys()
      const next = walk.next.bind(walk)
      walk.handle = handle
      walk.next = () => {
        const result = next()
        if (!result.done) seen.add(result.value)
        return result
      }
      how(walk)
      for (const key of map.keys({ from: walk.position })) seen.add(key)
      if (name !== 'close') assert.equal(seen.size, 20000, name)
      else assert.notEqual(walk.position, 2n ** 64n - 1n)
    }
  })

  // A map whose key is written as no JavaScript would: by its bytes.
  const foreign = (t, key, given) => {
    const where = mapPath(t)
    DiskMap.open(where, { key: bytes, value: u32, schema: `${key.name}/u32` })
      .setMany(given.map((text, i) => [Buffer.from(text, 'latin1'), i])).close()
    return DiskMap.open(where, { key, value: u32 })
  }

  test('a loop that writes misses no key that JavaScript would write otherwise', (t) => {
    const others = Array.from({ length: 40 }, (_, i) => `"k${i}"`)
    const trimmed = (given) => Buffer.from(given).toString().trim()
    const own = { name: 'own', encode: (text) => Buffer.from(text), decode: trimmed }
    for (const [key, given] of [
      [json, ['{ "a" : 1 }', '[1, 2]', '"\\u0041"', '1e3', '"\xff"', ...others]],
      [str, ['\xff\xfe', 'ok \x80', '\xef\xbf\xbd', 'caf\xc3\xa9', 'plain', ...others]],
      [f64, ['\0\0\0\0\0\0\0\x80', '\x01\0\0\0\0\0\xf8\x7f', '\0\0\0\0\0\0\xf0\x3f']],
      [own, [' blank', 'not', ...others]]
    ]) {
      const map = foreign(t, key, given)
      for (const kind of ['keys', 'values', 'entries']) {
        let came = 0
        const add = [key.encode(key === f64 ? 77 : 'new')].map((raw) => key.decode(raw))[0]
        for (const item of map[kind]()) {
          assert.notEqual(item, undefined)
          came++
          if (came === 1) map.set(add, 0).delete(add)
        }
        assert.equal(came, given.length, `${kind} of ${key.name}`)
      }
    }
  })

  test('one that can not be decoded raises when it comes, and hides no other', (t) => {
    const where = mapPath(t)
    const texts = Array.from({ length: 500 }, (_, i) => [`k${i}`, i % 100 === 7 ? '{bad' : String(i)])
    DiskMap.open(where, { key: str, value: str, schema: 'str/json' }).setMany(texts).close()
    const map = DiskMap.open(where, { key: str, value: json })
    for (const kind of ['values', 'entries']) {
      const walk = map[kind]()
      let good = 0
      let bad = 0
      for (;;) {
        try {
          if (walk.next().done) break
          good++
        } catch {
          bad++
        }
      }
      assert.deepEqual([good, bad], [495, 5], kind)
    }
    assert.equal([...map.keys()].length, 500)
  })

  test('a text that is longer than a string can be is a RangeError, and hides no other', (t) => {
    const where = mapPath(t)
    const long = new Uint8Array(require('node:buffer').constants.MAX_STRING_LENGTH + 1).fill(0x20)
    const raw = DiskMap.open(where, { key: str, value: bytes, schema: 'str/str' })
    raw.setMany([['a', Uint8Array.of(0x31)], ['long', long]]).close()
    for (const value of [str, json]) {
      const map = DiskMap.open(where, { key: str, value, schema: 'str/str' })
      const error = { name: 'RangeError', message: /longer than a string can be/ }
      assert.throws(() => map.get('long'), error)
      assert.throws(() => map.getMany(['a', 'long']), error)
      const walk = map.values()
      const came = []
      for (let i = 0; i < 2; i++) {
        try {
          came.push(walk.next().value)
        } catch (raised) {
          came.push(raised.name)
        }
      }
      assert.deepEqual(came.map(String).sort(), ['1', 'RangeError'])
      assert.equal(walk.next().done, true)
    }
  })

  test('a decoder may go on with the very walk it decodes for', () => {
    let walk = null
    let isInside = false
    const own = {
      name: 'own',
      encode: (n) => u32.encode(n),
      decode: (given) => {
        if (!isInside) {
          isInside = true
          for (let i = 0; i < 5; i++) walk.next()
          isInside = false
        }
        return u32.decode(given)
      }
    }
    const map = new DiskMap(Array.from({ length: 100 }, (_, i) => [i, i]), { key: u32, value: own })
    walk = map.entries()
    for (const [key, value] of walk) assert.equal(key, value)
  })

  test('position is checked', () => {
    assert.throws(() => filled(1).keys({ from: 1 }), /from must be a position, which is a bigint, not 1/)
    assert.throws(() => filled(1).keys({ from: -1n }), RangeError)
    assert.throws(() => filled(1).keys({ form: 1n }), /did you mean "from"/)
  })

  test('any number at a time, each at its own place', () => {
    const map = filled(1000)
    const walks = Array.from({ length: 20 }, () => map.values())
    const sums = walks.map(() => 0)
    for (let i = 0; i < 1000; i++) walks.forEach((walk, w) => { sums[w] += walk.next().value })
    assert.deepEqual(new Set(sums), new Set([499500]))
  })

  test('return ends it', () => {
    const walk = filled(100).keys()
    walk.next()
    assert.deepEqual(walk.return('x'), { value: 'x', done: true })
    assert.equal(walk.next().done, true)
  })

  test('a map may be closed inside its own walk', () => {
    const map = filled(1000)
    let seen = 0
    assert.throws(() => {
      for (const key of map.keys()) {
        assert.equal(typeof key, 'number')
        if (++seen === 100) map.close()
      }
    }, { code: 'ODM_CLOSED' })
    assert.equal(seen, 100)
  })

  test('what others wrote during a walk may come, and nothing else', (t) => {
    const path = mapPath(t)
    const map = DiskMap.open(path, { key: u32, value: u32 }).setMany([...Array(5000).keys()].map((i) => [i, 0]))
    const other = DiskMap.open(path, { key: u32, value: u32 })
    let seen = 0
    for (const [key, value] of map) {
      seen++
      assert.ok(value === 0 || value === 1)
      other.set((key + 2500) % 5000, 1)
    }
    assert.equal(seen, 5000)
  })
})

describe('view', () => {
  const map = new DiskMap([['short', Uint8Array.of(1, 2)], ['long', new Uint8Array(100000).fill(3)]], { key: str, value: bytes })

  test('lends the bytes, gives what the function gives', () => {
    assert.equal(map.view('short', (lent) => lent[1]), 2)
    assert.equal(map.view('long', (lent) => lent.length + lent[99999]), 100003)
    assert.equal(map.view('none', () => assert.fail()), undefined)
    assert.throws(() => map.view('short', 5), TypeError)
  })

  test('what was lent is empty afterwards, also after an error', () => {
    for (const key of ['short', 'long']) {
      let kept
      map.view(key, (lent) => { kept = lent })
      assert.equal(kept.length, 0)
      assert.throws(() => map.view(key, (lent) => {
        kept = lent
        throw new Error('mine')
      }), /mine/)
      assert.equal(kept.length, 0)
    }
  })

  test('stays while the map is used, also by another view of the same value', () => {
    const seen = map.view('long', (outer) => map.view('long', (inner) => {
      map.set('long', new Uint8Array(100000).fill(4))
      for (let i = 0; i < 1000; i++) map.get('short')
      return [outer[99999], inner[0], map.get('long')[0]]
    }))
    assert.deepEqual(seen, [3, 3, 4])
  })

  test('a map closed inside takes the bytes away', () => {
    const closing = new DiskMap([['k', new Uint8Array(100000)]], { key: str, value: bytes })
    assert.equal(closing.view('k', (lent) => {
      closing.close()
      return lent.length
    }), 0)
  })
})

describe('the map as a whole', () => {
  test('stat, capacity, loadFactor, schema, path', (t) => {
    const path = mapPath(t)
    const map = DiskMap.open(path, { key: str, value: str, capacity: 100000 })
    map.set('a', 'b')
    assert.equal(map.stat().count, 1)
    assert.match(map.stat().mapId, /^[0-9a-f]{32}$/)
    assert.ok(map.capacity >= 100000)
    assert.equal(map.loadFactor, 1 / map.stat().slots)
    assert.equal(map.schema, 'str/str')
    assert.equal(map.path, path)
    assert.match(require('node:util').inspect(map), /^DiskMap\(1 of str\/str\) .*map$/)
  })

  test('ready-made maps', (t) => {
    for (const [Kind, schema, key, value] of [[U64StringMap, 'u64/str', 1n, 'x'], [StringU64Map, 'str/u64', 'x', 1n],
      [StringStringMap, 'str/str', 'x', 'y']]) {
      const map = Kind.open(mapPath(t))
      assert.ok(map instanceof Kind && map instanceof DiskMap)
      assert.equal(map.set(key, value).get(key), value)
      assert.equal(map.schema, schema)
      assert.equal(new Kind([[key, value]]).get(key), value)
      assert.throws(() => Kind.open(mapPath(t), { key: str }), /key and value can not be given/)
    }
  })

  test('a map may be extended', () => {
    class Words extends DiskMap {
      set (key, value) {
        return super.set(key.toLowerCase(), value)
      }
    }
    const words = new Words([['Ab', 1]], { key: str, value: json })
    assert.equal(words.get('ab'), 1)
    assert.ok(words instanceof Words)
  })

  test('using', { skip: Symbol.dispose === undefined }, () => {
    const map = new DiskMap()
    map[Symbol.dispose]()
    assert.equal(map.closed, true)
  })
})
