'use strict'
// batch.js - many keys in one call: packed one behind the other in a buffer, which crosses over as one.

const { state } = require('./native')
const { bareError, located, typeError, shown } = require('./errors')
const { sourceOf } = require('./codecs')
const { OK, NOT_FOUND, EXISTS, CLOSED } = require('./handle')
const { VALUE_UNIT } = require('./walk')

const BATCH = 256 // keys a call
const BATCH_BYTES = 1024 * 1024 // then it is sent, also with fewer keys
const KEEP_BYTES = 4 * 1024 * 1024 // a buffer that has grown beyond is not kept
const ENDS_MAX = 2 ** 32 - 1 // what an end can be; no key and no value is that long
const ABSENT = 2 ** 32 - 1

/** A buffer that items are written to one behind the other, with their ends. Codecs write to it as to scratch. */
class Packer {
  constructor () {
    this.ends = new Uint32Array(BATCH)
    this.sizes = new Uint32Array(BATCH) // of the values that come back
    this.size = 0
    this.clear()
    this.ensure(64 * 1024)
  }

  clear () {
    this.count = 0
    this.end = 0
  }

  ensure (size) {
    if (size <= this.size) return
    if (size > ENDS_MAX) throw bareError('ODM_E_TOO_BIG', 'a key of 16 MiB, or a value of 4 GiB, is too big')
    const memory = new ArrayBuffer(Math.min(Math.max(size, this.size * 2), ENDS_MAX))
    if (this.size > 0) new Uint8Array(memory).set(this.plain)
    this.bytes = Buffer.from(memory)
    this.plain = new Uint8Array(memory)
    this.view = new DataView(memory)
    this.size = memory.byteLength
  }

  add (codec, prepared) {
    this.end = codec.write(this, prepared, this.end)
    this.ends[this.count++] = this.end
  }

  addNothing () {
    this.ends[this.count++] = this.end
  }

  get isFull () {
    return this.count === BATCH || this.end >= BATCH_BYTES
  }
}

// What a packer takes. May run code of the user, who may run another batch: that one has packers of its own.
function prepare (codec, item) {
  return codec.prepare === null ? item : codec.prepare(item)
}

const pool = []

function giveBack (packer) {
  packer.clear()
  if (packer.size <= KEEP_BYTES) pool.push(packer)
}

/** The values of `keys`, in their order, undefined for those that are absent. */
function getMany (handle, keys) {
  const packer = pool.pop() ?? new Packer()
  let values = null
  try {
    for (const key of keys) {
      packer.add(handle.key, prepare(handle.key, key))
      if (packer.isFull) values = fetch(handle, packer, values)
    }
    return packer.count > 0 ? fetch(handle, packer, values) : values ?? []
  } catch (error) {
    throw located(error, 'getMany', handle.path)
  } finally {
    giveBack(packer)
  }
}

// Adds the values of the packed keys to `values`, null if there are none yet.
function fetch (handle, packer, values) {
  let { plain, ends, count } = packer
  for (;;) {
    const result = handle.native.getMany(count, plain, ends, packer.sizes)
    if (typeof result === 'number') handle.fail('getMany', result)
    const done = state[2]
    const taken = valuesOf(handle, result, packer.sizes, done)
    if (values === null) values = taken
    else for (let i = 0; i < done; i++) values.push(taken[i])
    if (done === count) break
    // The values were so long that one call did not give them all.
    const begin = ends[done - 1]
    plain = plain.subarray(begin)
    ends = ends.subarray(done).map((end) => end - begin)
    count -= done
  }
  packer.clear()
  return values
}

function valuesOf (handle, result, sizes, count) {
  const { value: codec } = handle
  if (codec.text) {
    for (const text of result) if (typeof text === 'number') handle.fail('getMany', text) // too long for a string
    if (codec.fromText === null) return result
    return result.map((text) => text === undefined ? undefined : codec.fromText(text))
  }
  const source = sourceOf(new Uint8Array(result))
  const values = []
  for (let i = 0, at = 0; i < count; i++) {
    const size = sizes[i]
    if (size === ABSENT) {
      values.push(undefined)
      continue
    }
    values.push(codec.read(source, at, size))
    at += Math.ceil(size / VALUE_UNIT) * VALUE_UNIT
  }
  return values
}

const OPS = { __proto__: null, set: 0, insert: 1, delete: 2 }

/** Writes on their way to a map, some hundred a call. */
class Writer {
  #handle
  #operation
  #outcomes
  #keys = pool.pop() ?? new Packer()
  #values = pool.pop() ?? new Packer()
  #ops = new Uint8Array(BATCH)
  #results = new Uint8Array(BATCH)
  done = 0
  failed = false // by the engine: what is packed is not sent again

  constructor (handle, operation, outcomes) {
    this.#handle = handle
    this.#operation = operation
    this.#outcomes = outcomes
  }

  add (code, key, value) {
    const { key: keyCodec, value: valueCodec } = this.#handle
    const keys = this.#keys
    const values = this.#values
    key = prepare(keyCodec, key)
    if (code !== OPS.delete) value = prepare(valueCodec, value)
    if (value?.length > BATCH_BYTES) this.send() // Goes alone: it may have as many bytes as one call takes.
    const { count, end } = keys
    this.#ops[count] = code
    keys.add(keyCodec, key)
    try {
      if (code === OPS.delete) values.addNothing()
      else values.add(valueCodec, value)
    } catch (error) {
      keys.count = count // The key of a value that can not be stored.
      keys.end = end
      throw error
    }
    if (keys.isFull || values.isFull) this.send()
  }

  send () {
    const { count } = this.#keys
    if (count === 0) return
    const handle = this.#handle
    handle.changes++
    const status = handle.native.writeMany(count, this.#ops, this.#keys.plain, this.#keys.ends, this.#values.plain,
      this.#values.ends, this.#results)
    const written = status === OK ? count : status === CLOSED ? 0 : state[2]
    for (let i = 0; i < written && this.#outcomes !== null; i++) {
      this.#outcomes.push(this.#results[i] !== EXISTS && this.#results[i] !== NOT_FOUND)
    }
    this.done += written
    this.failed = status !== OK
    if (this.failed) handle.fail(this.#operation, status)
    this.#keys.clear()
    this.#values.clear()
  }

  giveBack () {
    giveBack(this.#keys)
    giveBack(this.#values)
  }
}

// Calls fill(writer) and sends what it adds. Of an error that it throws: what came before is written, as if each had been a
// call of its own, and `done` tells how many.
function write (handle, operation, outcomes, fill) {
  const writer = new Writer(handle, operation, outcomes)
  try {
    try {
      fill(writer)
    } catch (error) {
      if (!writer.failed) writer.send()
      throw error
    }
    writer.send()
  } catch (error) {
    if (Object(error) === error && Object.isExtensible(error)) error.done = writer.done
    throw located(error, operation, handle.path)
  } finally {
    writer.giveBack()
  }
}

/** Sets [key, value] in their order. */
function setMany (handle, entries) {
  write(handle, 'setMany', null, (writer) => {
    for (const entry of entries) {
      if (Object(entry) !== entry) throw new TypeError(`Iterator value ${String(entry)} is not an entry object`)
      writer.add(OPS.set, entry[0], entry[1])
    }
  })
}

/** Writes [op, key, value] in their order; gives true or false for each. */
function writeMany (handle, writes) {
  const outcomes = []
  write(handle, 'writeMany', outcomes, (writer) => {
    for (const [op, key, value] of writes) {
      const code = OPS[op]
      if (code === undefined) throw typeError(`a write is 'set', 'insert' or 'delete', not ${shown(op)}`)
      writer.add(code, key, value)
    }
  })
  return outcomes
}

module.exports = { getMany, setMany, writeMany }
