'use strict'
// codecs.js - how keys and values become bytes. The bytes are the same in every language that opendiskmap is bound to, and
// so are the names, which the map stores as its schema.
//
// Inside the package a codec has:
//   write(target, value, at)      writes to target.bytes and returns the end; runs no code of the user
//   read(source, start, size)     the value; source is {bytes, plain, view} like scratch
//   prepare(value) or null        runs before write if code of the user must run: it gives what write then takes
//   text                          the engine's side gives out strings; fromText makes a value of one, null: it is the value
//   long(value)                   null; or what goes to the engine as it is, because that is faster than to write it into
//                                 scratch, or because it has no room there: a string or a Uint8Array
// and in public `name`, `encode(value)` and `decode(bytes)`.

const { bareError, typeError, rangeError, shown } = require('./errors')

// Values above this go to the engine as an array of their own instead of through the scratch buffer.
const INLINE_MAX = 16 * 1024

/** An own encoding by its parts; or what `struct` and the constants below are. */
class Codec {
  constructor (name, parts) {
    this.name = name
    this.size = parts.size ?? 0 // of every value, 0 if they differ
    this.write = parts.write
    this.read = parts.read
    this.prepare = parts.prepare ?? null
    this.long = parts.long ?? null
    this.text = parts.text ?? false
    this.fromText = parts.fromText ?? null
    this.number = parts.number ?? null // zero of the type, for increment
    this.array = parts.array ?? null // the typed array for lists in structs
    this.inPlace = parts.inPlace ?? null // a value that reads from the bytes it is given, without a copy
    this.asKey = parts.asKey ?? this // as it is written where it is a key
    Object.freeze(this)
  }

  /** The bytes of a value: a new Uint8Array. */
  encode (value) {
    if (this.prepare !== null) value = this.prepare(value)
    const long = this.long !== null ? this.long(value) : null
    if (long !== null) return Uint8Array.from(typeof long === 'string' ? bytesOfText(long) : long)
    const target = sourceOf(new Uint8Array(this.size || INLINE_MAX))
    return target.plain.slice(0, this.write(target, value, 0))
  }

  /** The value of bytes that `encode` made, here or in another language. */
  decode (bytes) {
    if (!(bytes instanceof Uint8Array)) throw typeError(`decode takes a Uint8Array, not ${shown(bytes)}`)
    if (this.inPlace !== null) return this.inPlace(bytes)
    const source = sourceOf(bytes)
    if (!this.text) return this.read(source, 0, bytes.length)
    const text = source.bytes.utf8Slice(0, bytes.length)
    return this.fromText === null ? text : this.fromText(text)
  }
}

function sourceOf (given) {
  // Without Buffer's species: a slice of it is a Uint8Array, and a copy.
  const plain = Buffer.isBuffer(given) ? new Uint8Array(given.buffer, given.byteOffset, given.length) : given
  return {
    bytes: Buffer.from(plain.buffer, plain.byteOffset, plain.length),
    plain,
    view: new DataView(plain.buffer, plain.byteOffset, plain.length),
    size: plain.length,
    ensure (size) {
      if (size > plain.length) throw rangeError(`${size} bytes do not fit`)
    }
  }
}

// Of bytes in a map that are none of the encoding.
function corrupt (message) {
  return bareError('ODM_E_CORRUPT', message)
}

function wrongSize (name, size, should) {
  return corrupt(`a ${name} has ${should} bytes, but the map holds ${size} there: it was written as another type`)
}

// ---- numbers ---------------------------------------------------------------------------------------------------------

function scalar (name, type, size, array, { bigint = false, min, max } = {}) {
  const get = DataView.prototype[`get${type}`]
  const set = DataView.prototype[`set${type}`]
  const zero = bigint ? 0n : 0
  return new Codec(name, {
    size,
    array,
    number: zero,
    write: bigint
      ? (target, value, at) => {
          if (typeof value !== 'bigint') throw typeError(`a ${name} is a bigint such as 1n, not ${shown(value)}`)
          if (value < min || value > max) throw rangeError(`${value}n is no ${name}: it goes from ${min} to ${max}`)
          target.ensure(at + size)
          set.call(target.view, at, value, true)
          return at + size
        }
      : (target, value, at) => {
          if (typeof value !== 'number') throw typeError(`a ${name} is a number, not ${shown(value)}`)
          if (!(value >= min && value <= max) || !Number.isInteger(value)) {
            throw rangeError(`${value} is no ${name}: it is an integer from ${min} to ${max}`)
          }
          target.ensure(at + size)
          set.call(target.view, at, value, true)
          return at + size
        },
    read (source, start, length) {
      if (length !== size) throw wrongSize(name, length, size)
      return get.call(source.view, start, true)
    }
  })
}

function float (name, type, size, array) {
  const get = DataView.prototype[`get${type}`]
  const set = DataView.prototype[`set${type}`]
  const parts = {
    size,
    array,
    number: 0,
    write (target, value, at) {
      if (typeof value !== 'number') throw typeError(`an ${name} is a number, not ${shown(value)}`)
      target.ensure(at + size)
      set.call(target.view, at, value, true)
      return at + size
    },
    read (source, start, length) {
      if (length !== size) throw wrongSize(name, length, size)
      return get.call(source.view, start, true)
    }
  }
  // As keys of a Map, 0 and -0 are one, and all NaN are one.
  const asKey = new Codec(name, {
    ...parts,
    write (target, value, at) {
      return parts.write(target, Number.isNaN(value) ? NaN : value + 0, at)
    }
  })
  return new Codec(name, { ...parts, asKey })
}

const u8 = scalar('u8', 'Uint8', 1, Uint8Array, { min: 0, max: 2 ** 8 - 1 })
const u16 = scalar('u16', 'Uint16', 2, Uint16Array, { min: 0, max: 2 ** 16 - 1 })
const u32 = scalar('u32', 'Uint32', 4, Uint32Array, { min: 0, max: 2 ** 32 - 1 })
const u64 = scalar('u64', 'BigUint64', 8, BigUint64Array, { bigint: true, min: 0n, max: 2n ** 64n - 1n })
const i8 = scalar('i8', 'Int8', 1, Int8Array, { min: -(2 ** 7), max: 2 ** 7 - 1 })
const i16 = scalar('i16', 'Int16', 2, Int16Array, { min: -(2 ** 15), max: 2 ** 15 - 1 })
const i32 = scalar('i32', 'Int32', 4, Int32Array, { min: -(2 ** 31), max: 2 ** 31 - 1 })
const i64 = scalar('i64', 'BigInt64', 8, BigInt64Array, { bigint: true, min: -(2n ** 63n), max: 2n ** 63n - 1n })
const f32 = float('f32', 'Float32', 4, Float32Array)
const f64 = float('f64', 'Float64', 8, Float64Array)

// The bytes of a u64, and its name in the schema, but a number here.
const u53 = new Codec('u64', {
  size: 8,
  number: 0,
  write (target, value, at) {
    if (typeof value !== 'number') throw typeError(`a u53 is a number, not ${shown(value)}`)
    if (!(value >= 0 && value <= Number.MAX_SAFE_INTEGER) || !Number.isInteger(value)) {
      throw rangeError(`${value} is no u53: it is an integer from 0 to 2 ** 53 - 1`)
    }
    target.ensure(at + 8)
    target.view.setUint32(at, value >>> 0, true)
    target.view.setUint32(at + 4, (value / 2 ** 32) >>> 0, true)
    return at + 8
  },
  read (source, start, size) {
    if (size !== 8) throw wrongSize('u64', size, 8)
    const high = source.view.getUint32(start + 4, true)
    if (high >= 2 ** 21) {
      const value = source.view.getBigUint64(start, true)
      throw rangeError(`${value} is above 2 ** 53 - 1: read this map with u64, which gives bigints`)
    }
    return high * 2 ** 32 + source.view.getUint32(start, true)
  }
})

const bool = new Codec('bool', {
  size: 1,
  write (target, value, at) {
    if (typeof value !== 'boolean') throw typeError(`a bool is true or false, not ${shown(value)}`)
    target.ensure(at + 1)
    target.bytes[at] = value ? 1 : 0
    return at + 1
  },
  read (source, start, size) {
    if (size !== 1) throw wrongSize('bool', size, 1)
    const byte = source.bytes[start]
    if (byte > 1) throw corrupt(`a bool is the byte 0 or 1, but the map holds ${byte} there`)
    return byte === 1
  }
})

// ---- text ------------------------------------------------------------------------------------------------------------

const LOOP_MAX = 48 // characters: up to here a loop here is faster than a call of C++
const BYTES_A_UNIT_MAX = 3 // UTF-8 bytes of one UTF-16 unit

// Tells whether UTF-8 can hold it: a lone surrogate would become U+FFFD, and two strings the same key.
const isWellFormed = String.prototype.isWellFormed // Node.js 20 and newer
  ? (text) => text.isWellFormed()
  : (text) => !/\p{Surrogate}/u.test(text)

function refuseLoneSurrogate (text) {
  if (!isWellFormed(text)) throw rangeError(`${shown(text)} has a lone surrogate, which UTF-8 can not store`)
}

function writeLongText (target, text, at) {
  target.ensure(at + text.length * BYTES_A_UNIT_MAX)
  const written = target.bytes.utf8Write(text, at)
  if (written !== text.length) refuseLoneSurrogate(text)
  return at + written
}

function writeText (target, text, at) {
  const length = text.length
  if (length > LOOP_MAX || at + length > target.size) return writeLongText(target, text, at)
  const bytes = target.bytes
  for (let i = 0; i < length; i++) {
    const unit = text.charCodeAt(i)
    if (unit > 0x7f) return writeLongText(target, text, at)
    bytes[at + i] = unit
  }
  return at + length
}

function bytesOfText (text) {
  refuseLoneSurrogate(text)
  return Buffer.from(text, 'utf8')
}

function longText (text) {
  if (text.length <= LOOP_MAX) return null
  return text.length <= INLINE_MAX / BYTES_A_UNIT_MAX ? text : bytesOfText(text)
}

const str = new Codec('str', {
  text: true,
  write (target, value, at) {
    if (typeof value !== 'string') throw typeError(`a str is a string, not ${shown(value)}`)
    return writeText(target, value, at)
  },
  long (value) {
    return typeof value === 'string' ? longText(value) : null // write tells the wrong type
  },
  read (source, start, size) {
    return source.bytes.utf8Slice(start, start + size)
  }
})

const LOST = [Map, Set, WeakMap, WeakSet, Promise]

function isBinary (value) {
  return !isPlain(value) &&
    (ArrayBuffer.isView(value) || value instanceof ArrayBuffer || value instanceof SharedArrayBuffer)
}

function isLost (value) {
  return !isPlain(value) && (isBinary(value) || LOST.some((kind) => value instanceof kind))
}

// Most objects are, and this takes less time than the rest.
function isPlain (object) {
  const prototype = Object.getPrototypeOf(object)
  return prototype === Object.prototype || prototype === Array.prototype
}

// What JSON.stringify would make something else of without a word: NaN null, a Map {}, a typed array an object of
// digits, a function nothing. What it leaves out may go where nobody can tell: a property that is undefined. An object with
// toJSON is what that gives. `name` is that of the property, or the index in an Array.
function refuseLost (given, name) {
  let value = given
  if (typeof value === 'object' && value !== null) {
    if (isBinary(value)) {
      throw typeError(`json can not hold ${shown(value)}${at(name)}: use bytes or struct, or make it an Array`)
    }
    if (typeof value.toJSON === 'function') value = value.toJSON(String(name ?? ''))
  }
  if (typeof value === 'string' || typeof value === 'boolean' || value === null) return
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw rangeError(`json can not hold ${value}${at(name)}`)
    return
  }
  if (typeof value !== 'object' || isLost(value)) {
    throw typeError(`json can not hold ${shown(value)}${at(name)}`)
  }
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) refuseLost(value[i], i)
    return
  }
  for (const key of Object.keys(value)) {
    const property = value[key]
    if (property !== undefined) refuseLost(property, key)
  }
}

function at (name) {
  return name === undefined ? '' : typeof name === 'number' ? ` (at [${name}])` : ` (at .${name})`
}

function stringify (value) {
  try {
    return JSON.stringify(value)
  } catch (error) {
    // Of a circle or a bigint.
    if (error instanceof TypeError) error.code ??= 'ERR_INVALID_ARG_TYPE'
    throw error
  }
}

function parse (text) {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw corrupt(`the map holds what is no JSON: ${error.message}`)
  }
}

const json = new Codec('json', {
  text: true,
  fromText: parse,
  prepare (value) {
    const text = stringify(value) // First: it refuses a circle, which refuseLost would not survive.
    if (text === undefined) throw typeError(`json can not hold ${shown(value)}`)
    refuseLost(value)
    return text
  },
  write: writeText,
  long: longText,
  read (source, start, size) {
    return parse(source.bytes.utf8Slice(start, start + size))
  }
})

// ---- bytes, and own encodings ----------------------------------------------------------------------------------------

const lengthOf = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), 'length').get

// Throws where the memory of a typed array has gone elsewhere: it looks like an empty one.
function refuseDetached (array) {
  if (array.byteLength > 0) return
  try {
    new Uint8Array(array.buffer) // eslint-disable-line no-new
  } catch {
    throw typeError(`${shown(array)} is detached: its memory was transferred`)
  }
}

// Bytes of the user's, with their true length, whatever a property says.
function checkedBytes (value) {
  const length = lengthOf.call(value)
  if (length === 0) refuseDetached(value)
  return value.length === length ? value : new Uint8Array(value)
}

function writeBytes (target, value, at) {
  target.ensure(at + value.length)
  target.plain.set(value, at)
  return at + value.length
}

function longBytes (value) {
  return value.length > INLINE_MAX ? value : null
}

const bytes = new Codec('bytes', {
  prepare (value) {
    if (!(value instanceof Uint8Array)) throw typeError(`bytes are a Uint8Array, not ${shown(value)}`)
    return checkedBytes(value)
  },
  write: writeBytes,
  long: longBytes,
  read (source, start, size) {
    return source.plain.slice(start, start + size)
  }
})

const OWN_NAME = /^[A-Za-z_][A-Za-z0-9_.:@-]{0,63}$/

/** A codec from {name, encode, decode} of the user's. */
function ownCodec (given, role) {
  const { name, encode, decode } = given
  if (typeof encode !== 'function' || typeof decode !== 'function' || typeof name !== 'string') {
    throw typeError(`${role} is no encoding: it needs a name, encode(value) and decode(bytes)`)
  }
  if (!OWN_NAME.test(name)) {
    throw rangeError(`${shown(name)} is no name for an encoding: letters, digits and _ . : @ - are, up to 64 of them`)
  }
  if (builtIn.has(name)) throw rangeError(`${shown(name)} is the name of a built-in encoding: call yours otherwise`)
  return new Codec(name, {
    prepare (value) {
      const encoded = encode.call(given, value)
      if (encoded instanceof Uint8Array) return checkedBytes(encoded)
      throw typeError(`encode of ${name} must give a Uint8Array, not ${shown(encoded)}`)
    },
    write: writeBytes,
    long: longBytes,
    read (source, start, size) {
      const value = decode.call(given, source.plain.slice(start, start + size))
      if (value !== undefined) return value // undefined stands for absent: who looks again would look for ever.
      throw typeError(`decode of ${name} must give a value, not undefined`)
    }
  })
}

const builtIn = new Map([u8, u16, u32, u64, i8, i16, i32, i64, f32, f64, bool, str, bytes, json].map((c) => [c.name, c]))

/** What the user gave as `key` or `value`. */
function codecOf (given, role) {
  if (given instanceof Codec) return given
  if (typeof given === 'object' && given !== null) return ownCodec(given, role)
  throw typeError(`${role} must be an encoding such as str or u64, not ${shown(given)}`)
}

module.exports = {
  Codec, bytesOfText, builtIn, codecOf, sourceOf, corrupt, refuseDetached, refuseLoneSurrogate,
  u8, u16, u32, u64, i8, i16, i32, i64, u53, f32, f64, bool, str, bytes, json
}
