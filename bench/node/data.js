'use strict'
// data.js - the entries of the workload "seed" of bench/README.md, as strings: random letters and digits, keys of 1 to 25,
// values of 1 to 250, all lengths equally likely. The same in every process that is given the same seed.

const ALPHABET = Buffer.from('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz')
const POOL_SIZE = 1 << 19

/** Random 32-bit numbers (SplitMix32). */
function randomOf (seed) {
  let state = seed >>> 0
  return () => {
    state = (state + 0x9e3779b9) >>> 0
    let x = state
    x = Math.imul(x ^ (x >>> 16), 0x21f0aaad)
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97)
    return (x ^ (x >>> 15)) >>> 0
  }
}

/** Packed bytes, from which strings are made anew whenever they are asked for. */
class Texts {
  constructor (bytes, starts, sizes) {
    this.bytes = bytes
    this.starts = starts
    this.sizes = sizes
  }

  get (i) {
    return this.bytes.latin1Slice(this.starts[i], this.starts[i] + this.sizes[i])
  }

  /** New strings, in memory in the order of `order`: what is measured is the store, not the cache misses of this list. */
  fresh (order) {
    return Array.from(order, (i) => this.get(i))
  }
}

function drawKeys (count, seen, random) {
  const bytes = Buffer.alloc(count * 25)
  const starts = new Uint32Array(count)
  const sizes = new Uint8Array(count)
  let at = 0
  for (let i = 0; i < count;) {
    const size = 1 + random() % 25
    for (let j = 0; j < size; j++) bytes[at + j] = ALPHABET[random() % ALPHABET.length]
    const key = bytes.latin1Slice(at, at + size)
    if (seen.has(key)) continue
    seen.add(key)
    starts[i] = at
    sizes[i++] = size
    at += size
  }
  return new Texts(bytes, starts, sizes)
}

function drawValues (count, random) {
  const pool = Buffer.alloc(POOL_SIZE + 250)
  for (let i = 0; i < pool.length; i++) pool[i] = ALPHABET[random() % ALPHABET.length]
  const starts = new Uint32Array(count)
  const sizes = new Uint8Array(count)
  for (let i = 0; i < count; i++) {
    starts[i] = random() % POOL_SIZE
    sizes[i] = 1 + random() % 250
  }
  return new Texts(pool, starts, sizes)
}

/** {keys, absent, values, updates, order}: `order` is another order of the keys. */
function makeData (count, seed) {
  const random = randomOf(seed)
  const seen = new Set()
  const keys = drawKeys(count, seen, random)
  const absent = drawKeys(count, seen, random)
  const order = new Uint32Array(count).map((_, i) => i)
  for (let i = count - 1; i > 0; i--) {
    const j = random() % (i + 1)
    ;[order[i], order[j]] = [order[j], order[i]]
  }
  return { keys, absent, values: drawValues(count, random), updates: drawValues(count, random), order }
}

module.exports = { makeData }
