'use strict'
// walk.js - iterators over a map. They read some entries ahead, and open a walk of the engine at the first.

const { scratch, state } = require('./native')
const { sourceOf, str } = require('./codecs')
const { located, typeError, rangeError, shown } = require('./errors')
const { DONE, CLOSED } = require('./handle')

const AHEAD_FIRST = 4 // entries
const AHEAD_MAX = 256
const AHEAD_BYTES = 1024 * 1024
const VALUE_UNIT = 8 // packed values begin at multiples of it
const POSITION_END = 2n ** 64n - 1n

const IteratorPrototype = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]()))

/**
 * The keys or the values of what was read ahead at once. Each is decoded when it comes: one that can not be hides no
 * other. Is not written to again: decoding may run code of the user, who may go on with the walk.
 */
class Side {
  #handle
  #codec
  #isString // and the addon's string is what comes
  #strings // the addon's; for text only
  #source // bytes it packed, or null: item i has #sizes[i] of them at #starts[i]
  #sizes
  #starts

  constructor (handle, codec, given, packed, sizes, count) {
    this.#handle = handle
    this.#codec = codec
    this.#isString = codec.text && codec.fromText === null
    this.#strings = given
    this.#sizes = sizes
    this.#source = packed === undefined ? null : sourceOf(new Uint8Array(packed))
    if (packed === undefined) return
    this.#starts = new Array(count)
    for (let i = 0, at = 0; i < count; i++) {
      this.#starts[i] = at
      at += Math.ceil(sizes[i] / VALUE_UNIT) * VALUE_UNIT
    }
  }

  get (i) {
    const codec = this.#codec
    const text = codec.text ? this.#strings[i] : undefined
    if (this.#isString && typeof text === 'string') return text
    try {
      if (!codec.text) return codec.read(this.#source, this.#starts[i], this.#sizes[i])
      if (typeof text === 'number') this.#handle.fail('walk', text)
      return codec.fromText(text)
    } catch (error) {
      throw located(error, 'walk', this.#handle.path)
    }
  }

  // Puts the item into scratch as it lies in the map, which need not be how we would write it, and gives its end.
  put (i) {
    if (this.#source === null) return str.write(scratch, this.#strings[i], 0)
    const start = this.#starts[i]
    const size = this.#sizes[i]
    scratch.ensure(size)
    scratch.plain.set(this.#source.plain.subarray(start, start + size))
    return size
  }
}

/** An iterator as Map's: of keys, values or entries. Besides, it knows its position. */
class Walk {
  #handle
  #kind
  #iter = null // the engine's walk
  #over = false
  #start // the position of the first entry that was read ahead; after the walk's end, its own
  #keys = null
  #values = null // null in a walk over keys
  #count = 0
  #at = 0
  #ahead = AHEAD_FIRST
  #changes = 0 // the handle's, when the entries were read ahead

  constructor (handle, kind, from = 0n) {
    if (typeof from !== 'bigint') throw typeError(`from must be a position, which is a bigint, not ${shown(from)}`)
    if (from < 0n || from > POSITION_END) throw rangeError(`${from} is no position`)
    this.#handle = handle
    this.#kind = kind
    this.#start = from
  }

  next () {
    const handle = this.#handle
    for (;;) {
      if (this.#over) return { value: undefined, done: true }
      if (handle.closed) this.#fail(CLOSED)
      if (this.#at === this.#count) {
        this.#read()
        continue
      }
      const i = this.#at++
      // Where something was changed since, what was read ahead may be old. Map would not give it out, either.
      const value = handle.changes === this.#changes ? this.#item(i) : this.#itemNow(i)
      if (value !== undefined) return { value, done: false }
    }
  }

  #item (i) {
    const keys = this.#keys
    const values = this.#values
    if (values === null) return keys.get(i)
    return this.#kind === 'values' ? values.get(i) : [keys.get(i), values.get(i)]
  }

  // As the map has it now; undefined if it has it no more.
  #itemNow (i) {
    const handle = this.#handle
    const keys = this.#keys
    if (this.#kind === 'keys') return handle.hasAt(keys.put(i)) ? keys.get(i) : undefined
    const value = handle.getAt(keys.put(i))
    return this.#kind === 'values' || value === undefined ? value : [keys.get(i), value]
  }

  /** Ends the walk; `break` in a loop calls it. */
  return (value) {
    this.#end(this.position)
    return { value, done: true }
  }

  /**
   * Where a walk in any process can go on: `map.entries({ from: position })`. It gives the entries that have not come yet,
   * and again some of those that have (a few thousand at most).
   */
  get position () {
    if (this.#over || this.#iter === null || this.#at < this.#count || this.#handle.closed) return this.#start
    return this.#handle.native.walkPosition(this.#iter)
  }

  [Symbol.iterator] () {
    return this
  }

  get [Symbol.toStringTag] () {
    return 'DiskMap Iterator'
  }

  #read () {
    const { native } = this.#handle
    if (this.#iter === null) this.#open()
    this.#start = native.walkPosition(this.#iter)
    this.#changes = this.#handle.changes
    const keySizes = new Uint32Array(this.#ahead)
    const valueSizes = this.#kind === 'keys' ? null : new Uint32Array(this.#ahead)
    const sides = native.walkNext(this.#iter, this.#ahead, keySizes, valueSizes)
    if (sides === DONE) return this.#end(POSITION_END)
    if (typeof sides === 'number') this.#fail(sides)
    const [, , count, bytes] = state
    const { key, value } = this.#handle
    this.#keys = new Side(this.#handle, key, sides[0], key.text ? sides[2] : sides[0], keySizes, count)
    if (valueSizes !== null) {
      this.#values = new Side(this.#handle, value, sides[1], value.text ? undefined : sides[1], valueSizes, count)
    }
    this.#count = count
    this.#at = 0
    const fitting = Math.floor(AHEAD_BYTES / (bytes / count + 1))
    this.#ahead = Math.max(1, Math.min(AHEAD_MAX, this.#ahead * 2, fitting))
  }

  #open () {
    const { native } = this.#handle
    const iter = native.walkOpen()
    if (typeof iter === 'number') this.#fail(iter)
    this.#iter = iter
    const status = this.#start === 0n ? 0 : native.walkSeek(iter, this.#start)
    if (status !== 0) this.#fail(status)
  }

  #fail (status) {
    this.#end(this.#start)
    this.#handle.fail('walk', status)
  }

  #end (position) {
    this.#over = true
    this.#start = position
    this.#keys = this.#values = null
    if (this.#iter !== null) this.#handle.native.walkClose(this.#iter)
    this.#iter = null
  }
}
Object.setPrototypeOf(Walk.prototype, IteratorPrototype)
if (Symbol.dispose !== undefined) {
  Object.defineProperty(Walk.prototype, Symbol.dispose, { value () { this.return() }, configurable: true, writable: true })
}

module.exports = { Walk, VALUE_UNIT }
