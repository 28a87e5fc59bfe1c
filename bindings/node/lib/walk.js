'use strict'
// walk.js - iterators over a map. They read some entries ahead, and open a walk of the engine at the first.

const { state } = require('./native')
const { sourceOf } = require('./codecs')
const { typeError, rangeError, shown } = require('./errors')
const { DONE, CLOSED } = require('./handle')

const AHEAD_FIRST = 4 // entries
const AHEAD_MAX = 256
const AHEAD_BYTES = 1024 * 1024
const VALUE_UNIT = 8 // packed values begin at multiples of it
const POSITION_END = 2n ** 64n - 1n

const IteratorPrototype = Object.getPrototypeOf(Object.getPrototypeOf([][Symbol.iterator]()))

/** Values of one side of a batch: the addon's strings, or bytes it packed. */
function unpacked (codec, side, sizes, count) {
  if (codec.text) {
    if (codec.fromText !== null) for (let i = 0; i < count; i++) side[i] = codec.fromText(side[i])
    return side
  }
  const values = new Array(count)
  const source = sourceOf(new Uint8Array(side))
  for (let i = 0, at = 0; i < count; i++) {
    values[i] = codec.read(source, at, sizes[i])
    at += Math.ceil(sizes[i] / VALUE_UNIT) * VALUE_UNIT
  }
  return values
}

/** An iterator as Map's: of keys, values or entries. Besides, it knows its position. */
class Walk {
  #handle
  #kind
  #iter = null // the engine's walk
  #over = false
  #start // the position of the first entry that was read ahead; after the walk's end, its own
  #keys = []
  #values = []
  #count = 0
  #at = 0
  #ahead = AHEAD_FIRST
  #changes = 0 // the handle's, when the entries were read ahead
  #keySizes = null
  #valueSizes = null

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
      const key = this.#keys[i]
      let value = this.#values[i]
      if (handle.changes !== this.#changes) {
        // Something was changed since: what was read ahead may be old. Map would not give it out, either.
        value = this.#kind === 'keys' ? handle.has(key) || undefined : handle.get(key)
        if (value === undefined) continue
      }
      return { value: this.#kind === 'entries' ? [key, value] : this.#kind === 'keys' ? key : value, done: false }
    }
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
    const sides = native.walkNext(this.#iter, this.#ahead, this.#keySizes, this.#valueSizes)
    if (sides === DONE) return this.#end(POSITION_END)
    if (typeof sides === 'number') this.#fail(sides)
    const [, , count, bytes] = state
    this.#keys = unpacked(this.#handle.key, sides[0], this.#keySizes, count)
    if (this.#valueSizes !== null) this.#values = unpacked(this.#handle.value, sides[1], this.#valueSizes, count)
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
    this.#keySizes = new Uint32Array(AHEAD_MAX)
    if (this.#kind !== 'keys') this.#valueSizes = new Uint32Array(AHEAD_MAX)
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
    this.#keys = this.#values = []
    if (this.#iter !== null) this.#handle.native.walkClose(this.#iter)
    this.#iter = null
  }
}
Object.setPrototypeOf(Walk.prototype, IteratorPrototype)
if (Symbol.dispose !== undefined) {
  Object.defineProperty(Walk.prototype, Symbol.dispose, { value () { this.return() }, configurable: true, writable: true })
}

module.exports = { Walk, unpacked, VALUE_UNIT }
