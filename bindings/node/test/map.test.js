'use strict'
// What holds for a Map holds for a DiskMap: each behaviour is run against both.

const { test, describe } = require('node:test')
const assert = require('node:assert/strict')
const { DiskMap, str, json, f64 } = require('opendiskmap')
const { mapPath } = require('./support')

const sorted = (iterable) => [...iterable].sort()

// name: what is done with a map of (str, json) that holds a: 1, b: 2; what is compared is what it returns.
const behaviours = {
  'get gives the value': (map) => map.get('a'),
  'get of an absent key gives undefined': (map) => map.get('x'),
  'has tells': (map) => [map.has('a'), map.has('x')],
  'set returns the map': (map) => map.set('c', 3) === map && map.get('c'),
  'set replaces': (map) => map.set('a', 9).get('a'),
  'set chains': (map) => map.set('c', 1).set('d', 2).size,
  'delete tells whether the key was there': (map) => [map.delete('a'), map.delete('a'), map.has('a'), map.size],
  'clear gives undefined and empties': (map) => [map.clear(), map.size, map.has('a')],
  'size is a number': (map) => map.size,
  'size can not be set': (map) => {
    assert.throws(() => { map.size = 7 }, TypeError)
    return map.size
  },
  'the empty string is a key': (map) => map.set('', 'empty').get(''),
  'null is a value': (map) => [map.set('n', null).get('n'), map.has('n')],
  'objects are values': (map) => map.set('o', { x: [1, { y: null }] }).get('o'),
  'text beyond ASCII is a key': (map) => map.set('ключ-鍵-🔑', 'ü').get('ключ-鍵-🔑'),
  'keys, values, entries': (map) => [sorted(map.keys()), sorted(map.values()), sorted(map.entries())],
  'a map iterates over its entries': (map) => sorted(map),
  'Symbol.iterator is entries': (map) => map[Symbol.iterator] === map.entries,
  'an iterator is iterable, and itself': (map) => {
    const iterator = map.keys()
    return iterator[Symbol.iterator]() === iterator
  },
  'an iterator that is over stays over': (map) => {
    const iterator = map.keys()
    for (const key of iterator) assert.equal(typeof key, 'string')
    map.set('late', 1)
    return [iterator.next(), iterator.next()]
  },
  'next gives value and done': (map) => {
    map.delete('b')
    const iterator = map.entries()
    return [iterator.next(), iterator.next()]
  },
  'the entries are arrays of one\'s own': (map) => {
    for (const entry of map) entry[1] = 'changed'
    return sorted(map.values())
  },
  'spread, destructuring, Array.from, new Map': (map) => {
    const [first] = map.keys()
    return [typeof first, Array.from(map).length, new Map(map).size, Object.fromEntries(map)]
  },
  'forEach gives value, key, map': (map) => {
    const seen = []
    const given = map.forEach((value, key, all) => seen.push([key, value, all === map]))
    return [given, seen.sort()]
  },
  'forEach sets this': (map) => {
    const receiver = {}
    map.forEach(function () { assert.equal(this, receiver) }, receiver)
    return true
  },
  'forEach without a function is a TypeError': (map) => assert.throws(() => map.forEach(5), TypeError),
  'a key that is deleted before it comes does not come': (map) => {
    for (let i = 0; i < 500; i++) map.set(`k${i}`, i)
    let seen = 0
    for (const [key] of map) {
      seen++
      for (const other of [...map.keys()]) if (other !== key) map.delete(other)
    }
    return seen
  },
  'a walk may delete what it meets': (map) => {
    for (let i = 0; i < 500; i++) map.set(`k${i}`, i)
    let seen = 0
    for (const key of map.keys()) {
      seen++
      assert.equal(map.delete(key), true)
    }
    return [seen, map.size]
  },
  'a walk gives the present value': (map) => {
    const seen = []
    for (const [key, value] of map) {
      seen.push(value)
      map.set(key === 'a' ? 'b' : 'a', 7) // The one that is still to come.
    }
    return seen.includes(7)
  },
  'values() gives the present value': (map) => {
    const walk = map.values()
    walk.next()
    map.set('a', 7).set('b', 7)
    return walk.next().value
  },
  'a loop may be left': (map) => {
    for (const key of map.keys()) return typeof key
  },
  'toString names the class': (map) => Object.prototype.toString.call(map).replace('Disk', ''),
  'an iterator names the class': (map) => Object.prototype.toString.call(map.keys()).replace('Disk', ''),
  'methods check their receiver': (map) => {
    for (const name of ['get', 'has', 'set', 'delete', 'clear', 'keys', 'values', 'entries', 'forEach']) {
      assert.throws(() => map[name].call(new Set(), 'a', () => {}), TypeError, name)
    }
  },
  'methods are not enumerable': (map) => Object.keys(map).length,
  'the class can not be called': (map) => assert.throws(() => map.constructor(), TypeError),
  'the constructor takes entries': (map, make) => sorted(make([['x', 1], ['y', 2]])),
  'the constructor takes null': (map, make) => make(null).size,
  'the constructor takes any iterable': (map, make) => sorted(make(new Set([['x', 1]]).values())),
  'the constructor refuses what is no entry': (map, make) => assert.throws(() => make([1]), TypeError),
  'the constructor refuses what is not iterable': (map, make) => assert.throws(() => make(5), TypeError)
}

const makers = {
  'in memory': () => (entries) => new DiskMap(entries, { key: str, value: json }),
  'on disk': (t) => {
    let count = 0
    const path = mapPath(t)
    return (entries) => {
      const map = DiskMap.open(`${path}${count++}`, { key: str, value: json })
      if (entries === null) return map
      for (const entry of entries) {
        if (Object(entry) !== entry) throw new TypeError('no entry')
        map.set(...entry)
      }
      return map
    }
  }
}

for (const [where, maker] of Object.entries(makers)) {
  describe(`as a Map, ${where}`, () => {
    for (const [name, run] of Object.entries(behaviours)) {
      test(name, (t) => {
        const entries = [['a', 1], ['b', 2]]
        const make = maker(t)
        const should = run(new Map(entries), (given) => new Map(given))
        assert.deepEqual(run(make(entries), make), should)
      })
    }
  })
}

describe('numbers as keys, as in a Map', () => {
  for (const [name, put, ask] of [['0 and -0 are one', -0, 0], ['-0 and 0 are one', 0, -0], ['NaN is NaN', NaN, NaN]]) {
    test(name, () => {
      const should = new Map([[put, 1]])
      const map = new DiskMap([[put, 1]], { key: f64, value: f64 })
      assert.equal(map.get(ask), should.get(ask))
      assert.deepEqual([...map.keys()], [...should.keys()])
      assert.equal(map.set(ask, 2).size, 1)
    })
  }
  test('values keep their sign', () => {
    assert.ok(Object.is(new DiskMap([[1, -0]], { key: f64, value: f64 }).get(1), -0))
  })
})
