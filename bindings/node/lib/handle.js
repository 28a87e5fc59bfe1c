'use strict'
// handle.js - an open map as the rest of lib sees it: keys and values go in and out as JavaScript's, statuses become errors.
//
// What always holds: code of the user (prepare, decode, getters, iterators) runs before the scratch buffer is written or
// after it was read, never between, for it may use this or another map, which share that buffer.

const { native: addon, scratch, state } = require('./native')
const { DiskMapError, statusError, located, rangeError } = require('./errors')
const { sourceOf, bytesOfText } = require('./codecs')

const OK = 0
const NOT_FOUND = 1
const EXISTS = 2
const DONE = 3
const CONFLICT = 4
const CLOSED = -100
const TOO_LONG = -101
const DOUBTFUL = -102

class Handle {
  constructor (native, path, key, value) {
    this.native = native
    this.path = path // undefined: in memory
    this.key = key.asKey
    this.value = value
    this.closed = false
    this.views = new Set() // buffers that view lends just now
    this.changes = 0 // made through this handle: walks that read ahead look at it
    native.types(key.text, value.text)
  }

  // Always throws. `status` is what a function of the addon gave.
  fail (operation, status) {
    if (status === CLOSED) {
      throw new DiskMapError('ODM_CLOSED', `${operation}: the map is closed (${this.path ?? 'in memory'})`,
        { path: this.path })
    }
    if (status === TOO_LONG) throw rangeError(`${operation}: longer than a string can be: read this map with bytes`)
    const detail = this.native.lastError()
    throw statusError(operation, this.path, status, typeof detail === 'number' ? [0, 0, ''] : detail)
  }

  // Puts the key into scratch and gives its end.
  putKey (key) {
    const codec = this.key
    return codec.write(scratch, codec.prepare === null ? key : codec.prepare(key), 0)
  }

  // The value of what get and entryGet of the addon gave.
  taken (operation, result) {
    const codec = this.value
    try {
      if (typeof result === 'string') return codec.fromText === null ? result : codec.fromText(result)
      if (result === undefined) return undefined
      if (typeof result === 'number') {
        return result >= 0 ? codec.read(scratch, 0, result) : this.fail(operation, result)
      }
      return codec.read(sourceOf(new Uint8Array(result)), 0, result.byteLength)
    } catch (error) {
      throw located(error, operation, this.path)
    }
  }

  // What `send` takes. May run code of the user.
  preparedKey (key) {
    const codec = this.key
    return codec.prepare === null ? key : codec.prepare(key)
  }

  preparedValue (value) {
    const codec = this.value
    return codec.prepare === null ? value : codec.prepare(value)
  }

  // What get gives of a value that was put, without asking the map: others may have changed it since.
  readBack (prepared) {
    const codec = this.value
    if (typeof prepared === 'string') return codec.fromText === null ? prepared : codec.fromText(prepared)
    if (prepared instanceof Uint8Array) return codec.read(sourceOf(prepared), 0, prepared.length)
    return codec.read(scratch, 0, codec.write(scratch, prepared, 0))
  }

  // Calls native[method] with key and value, both prepared, and gives its status. `version` {low, high} goes along if
  // it is given.
  send (method, key, value, version) {
    const { key: keys, value: values, native } = this
    const long = values.long === null ? null : values.long(value)
    const keyEnd = keys.write(scratch, key, 0)
    const end = long === null ? values.write(scratch, value, keyEnd) : long
    if (version !== undefined) {
      state[0] = version.low
      state[1] = version.high
    }
    const status = native[method](keyEnd, end)
    return status === DOUBTFUL ? native[method](keyEnd, bytesOfText(long)) : status
  }

  get (key) {
    return this.taken('get', this.native.get(this.putKey(key)))
  }

  has (key) {
    const status = this.native.has(this.putKey(key))
    return status === OK || (status === NOT_FOUND ? false : this.fail('has', status))
  }

  // As get and has, of a key that is in scratch already: for walks.
  getAt (keyEnd) {
    return this.taken('walk', this.native.get(keyEnd))
  }

  hasAt (keyEnd) {
    const status = this.native.has(keyEnd)
    return status === OK || (status === NOT_FOUND ? false : this.fail('walk', status))
  }

  put (key, value) {
    this.changes++
    const status = this.send('put', this.preparedKey(key), this.preparedValue(value))
    if (status !== OK) this.fail('set', status)
  }

  remove (key) {
    this.changes++
    const status = this.native.remove(this.putKey(key))
    return status === OK || (status === NOT_FOUND ? false : this.fail('delete', status))
  }

  // The value with its version: {value, low, high}. value undefined: vacant.
  entryGet (operation, key) {
    const result = this.native.entryGet(this.putKey(key))
    const low = state[0] // Before the value is decoded: that may run code of the user.
    const high = state[1]
    return { value: this.taken(operation, result), low, high }
  }

  // Puts the prepared value if the key is still at that version (0, 0: absent). False if it is not.
  entryPut (operation, key, prepared, version) {
    this.changes++
    const status = this.send('entryPut', this.preparedKey(key), prepared, version)
    return status === OK || (status === EXISTS || status === CONFLICT ? false : this.fail(operation, status))
  }

  // Removes the key if it is still at that version. False if it is not.
  entryRemove (operation, key, { low, high }) {
    this.changes++
    const keyEnd = this.putKey(key)
    state[0] = low
    state[1] = high
    const status = this.native.entryRemove(keyEnd)
    return status === OK || (status === CONFLICT ? false : this.fail(operation, status))
  }

  // The version {low, high} of the key if its value has the bytes of `value`; null if it has others, or is absent.
  entryIs (operation, key, value) {
    const status = this.send('entryIs', this.preparedKey(key), this.preparedValue(value))
    if (status === OK) return { low: state[0], high: state[1] }
    return status === NOT_FOUND || status === CONFLICT ? null : this.fail(operation, status)
  }

  // Calls use(bytes) with the value where it lies; it may not keep them.
  view (key, use) {
    const buffer = this.native.view(this.putKey(key))
    if (buffer === undefined) return undefined
    if (typeof buffer === 'number') this.fail('view', buffer)
    this.views.add(buffer)
    try {
      return use(new Uint8Array(buffer))
    } finally {
      this.endView(buffer)
    }
  }

  endView (buffer) {
    if (this.views.delete(buffer)) this.native.viewEnd(buffer)
  }

  close () {
    if (this.closed) return
    this.closed = true
    for (const buffer of this.views) this.endView(buffer) // The memory they show is about to go.
    const status = this.native.close()
    if (status < 0) this.fail('close', status)
  }
}

/** Opens, or throws what the engine says. */
function openNative (path, schema, numbers) {
  const native = addon.open(path, schema, numbers)
  if (Array.isArray(native)) throw statusError('open', path, native[0], native)
  return native
}

module.exports = { Handle, openNative, OK, NOT_FOUND, EXISTS, DONE, CONFLICT, CLOSED }
