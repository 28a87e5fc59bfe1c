'use strict'
// map.js - DiskMap: Map's methods, on a map that lives on disk. Documented in ../index.d.ts and ../README.md.

const { inspect } = require('node:util')
const { Handle, openNative, OK } = require('./handle')
const { codecOf, refuseLoneSurrogate, u64, str, json } = require('./codecs')
const { codecsOfSchema, whyNoCodec } = require('./struct')
const { checkNames, openNumbers, pathOf, OPEN_OPTIONS } = require('./options')
const { DiskMapError, typeError, shown } = require('./errors')
const { Walk } = require('./walk')
const { Entry } = require('./entry')
const { getMany, setMany, writeMany } = require('./batch')
const { run } = require('./work')

const MUST_EXIST = 2
const MUST_CREATE = 4
const READ_ONLY = 1

// ---- opening ---------------------------------------------------------------------------------------------------------

function openHandle (path, options) {
  checkNames(options, OPEN_OPTIONS)
  const key = options.key === undefined ? undefined : codecOf(options.key, 'key')
  const value = options.value === undefined ? undefined : codecOf(options.value, 'value')
  const { schema } = options
  if (schema !== undefined && schema !== null && typeof schema !== 'string') {
    throw typeError(`schema must be a string, or null for none, not ${shown(schema)}`)
  }
  if (typeof schema === 'string') refuseLoneSurrogate(schema)
  const numbers = openNumbers(options)
  const whole = key !== undefined && value !== undefined
  if (!whole && schema === undefined && path !== undefined && !(numbers[0] & MUST_CREATE)) {
    const handle = openByItsSchema(path, numbers, key, value)
    if (handle !== null) return handle
  }
  return openAs(path, numbers, key ?? str, value ?? json, schema)
}

function openAs (path, numbers, key, value, schema) {
  const wanted = schema === undefined ? `${key.name}/${value.name}` : schema ?? undefined
  return new Handle(openNative(path, wanted, numbers), path, key, value)
}

/** A map that is there says itself what its keys and values are. null: there is none, but one may be made. */
function openByItsSchema (path, [flags, ...numbers], key, value) {
  let native
  try {
    native = openNative(path, undefined, [flags | MUST_EXIST, ...numbers])
  } catch (error) {
    if (error.code === 'ODM_NOT_FOUND' && !(flags & (MUST_EXIST | READ_ONLY))) return null
    throw error
  }
  const schema = native.schema()
  const [itsKey, itsValue] = codecsOfSchema(schema)
  const names = schema.split('/')
  const fits = (given, its, name) => given === undefined ? its !== undefined : given.name === name
  if (names.length === 2 && fits(key, itsKey, names[0]) && fits(value, itsValue, names[1])) {
    return new Handle(native, path, key ?? itsKey, value ?? itsValue)
  }
  native.close()
  const asked = `${key?.name ?? '(not given)'}/${value?.name ?? '(not given)'}`
  const message = schema === ''
    ? `open: the map was made without a schema: say what it holds by key, value, and schema: null (${path})`
    : `open: the map was made as "${schema}", and is opened as "${asked}"${whyNoCodec(schema)} (${path})`
  throw new DiskMapError('ODM_E_MISMATCH', message, { path })
}

// ---- the map ---------------------------------------------------------------------------------------------------------

class DiskMap {
  #handle

  constructor (entries, options = {}) {
    this.#handle = options instanceof Handle ? options : openHandle(undefined, options)
    if (entries === undefined || entries === null) return
    for (const entry of entries) {
      if (Object(entry) !== entry) throw new TypeError(`Iterator value ${String(entry)} is not an entry object`)
      this.set(entry[0], entry[1])
    }
  }

  static open (path, options = {}) {
    return new this(undefined, openHandle(pathOf(path), options))
  }

  // ---- as Map ----

  get (key) {
    return this.#handle.get(key)
  }

  has (key) {
    return this.#handle.has(key)
  }

  set (key, value) {
    this.#handle.put(key, value)
    return this
  }

  delete (key) {
    return this.#handle.remove(key)
  }

  clear () {
    this.#handle.changes++
    const status = this.#handle.native.clear()
    if (status !== OK) this.#handle.fail('clear', status)
  }

  get size () {
    const count = this.#handle.native.count()
    return count >= 0 ? count : this.#handle.fail('size', count)
  }

  keys (options) {
    return this.#walk('keys', options)
  }

  values (options) {
    return this.#walk('values', options)
  }

  entries (options) {
    return this.#walk('entries', options)
  }

  #walk (kind, options = {}) {
    checkNames(options, ['from'])
    return new Walk(this.#handle, kind, options.from)
  }

  forEach (use, receiver) {
    const walk = this.#walk('entries')
    if (typeof use !== 'function') throw typeError(`forEach takes a function, not ${shown(use)}`)
    for (const [key, value] of walk) use.call(receiver, value, key, this)
  }

  getOrInsert (key, value) {
    return this.getOrInsertComputed(key, () => value)
  }

  getOrInsertComputed (key, make) {
    if (typeof make !== 'function') throw typeError(`getOrInsertComputed takes a function, not ${shown(make)}`)
    const handle = this.#handle
    let present = handle.get(key)
    if (present !== undefined) return present
    const prepared = handle.preparedValue(make(key))
    while (!handle.entryPut('getOrInsert', key, prepared, { low: 0, high: 0 })) {
      present = handle.get(key) // Somebody was faster. Or removed it since: then again.
      if (present !== undefined) return present
    }
    return handle.readBack(prepared)
  }

  // ---- read, decide, write only if nothing changed ----

  entry (key) {
    return new Entry(this.#handle, key)
  }

  update (key, change) {
    if (typeof change !== 'function') throw typeError(`update takes a function, not ${shown(change)}`)
    const handle = this.#handle
    for (;;) {
      const found = handle.entryGet('update', key)
      const value = change(found.value)
      if (value === undefined) {
        if (found.value === undefined || handle.entryRemove('update', key, found)) return undefined
      } else if (handle.entryPut('update', key, handle.preparedValue(value), found)) {
        return value
      }
    }
  }

  increment (key, by) {
    const handle = this.#handle
    const codec = handle.value
    if (codec.number === null) throw typeError(`increment needs a map of numbers; this one holds ${codec.name}`)
    const step = by ?? (typeof codec.number === 'bigint' ? 1n : 1)
    if (typeof step !== typeof codec.number) {
      throw typeError(`increment of a ${codec.name} takes a ${typeof codec.number}, not ${shown(step)}`)
    }
    return handle.readBack(this.update(key, (value) => (value ?? codec.number) + step))
  }

  compareAndSet (key, expected, value) {
    const handle = this.#handle
    for (;;) {
      const found = expected === undefined ? { low: 0, high: 0 } : handle.entryIs('compareAndSet', key, expected)
      if (found === null) return false
      if (value === undefined) {
        if (expected === undefined) return !handle.has(key)
        if (handle.entryRemove('compareAndSet', key, found)) return true
      } else if (handle.entryPut('compareAndSet', key, handle.preparedValue(value), found)) {
        return true
      } else if (expected === undefined) {
        return false
      }
    }
  }

  // ---- many keys ----

  getMany (keys) {
    return getMany(this.#handle, keys)
  }

  setMany (entries) {
    setMany(this.#handle, entries)
    return this
  }

  writeMany (writes) {
    return writeMany(this.#handle, writes)
  }

  // ---- in place ----

  view (key, use) {
    if (typeof use !== 'function') throw typeError(`view takes a function, not ${shown(use)}`)
    return this.#handle.view(key, use)
  }

  // ---- the map as a whole ----

  async sync (options) {
    await run(this.#handle, 'sync', undefined, options)
  }

  async compact (options) {
    await run(this.#handle, 'compact', undefined, options)
  }

  async verify (options) {
    return await run(this.#handle, 'verify', undefined, options)
  }

  async backup (path, options) {
    await run(this.#handle, 'backup', pathOf(path), options)
  }

  stat () {
    const statistics = this.#handle.native.stat()
    return typeof statistics === 'object' ? statistics : this.#handle.fail('stat', statistics)
  }

  get capacity () {
    return this.stat().capacity
  }

  get loadFactor () {
    const { count, slots } = this.stat()
    return slots === 0 ? 0 : count / slots
  }

  get schema () {
    const schema = this.#handle.native.schema()
    return typeof schema === 'string' ? schema : this.#handle.fail('schema', schema)
  }

  get path () {
    return this.#handle.path
  }

  get closed () {
    return this.#handle.closed
  }

  close () {
    this.#handle.close()
  }

  get [Symbol.toStringTag] () {
    return 'DiskMap'
  }

  [inspect.custom] () {
    const { path, key, value, closed } = this.#handle
    const what = closed ? 'closed' : `${this.size} of ${key.name}/${value.name}`
    return `${this.constructor.name}(${what}) ${path ?? 'in memory'}`
  }
}
// As in Map: one function under both names.
Object.defineProperty(DiskMap.prototype, Symbol.iterator,
  { value: DiskMap.prototype.entries, writable: true, configurable: true })
if (Symbol.dispose !== undefined) {
  Object.defineProperty(DiskMap.prototype, Symbol.dispose, { value () { this.close() }, writable: true, configurable: true })
}

// ---- ready-made ------------------------------------------------------------------------------------------------------

function mapOf (name, key, value) {
  const typed = (options = {}) => {
    if (options instanceof Handle) return options
    checkNames(options, OPEN_OPTIONS)
    if (options.key !== undefined || options.value !== undefined) {
      throw typeError(`a ${name} holds ${key.name}/${value.name}: key and value can not be given`)
    }
    return { ...options, key, value }
  }
  return {
    [name]: class extends DiskMap {
      constructor (entries, options) {
        super(entries, typed(options))
      }

      static open (path, options) {
        return super.open(path, typed(options))
      }
    }
  }[name]
}

module.exports = {
  DiskMap,
  U64StringMap: mapOf('U64StringMap', u64, str),
  StringU64Map: mapOf('StringU64Map', str, u64),
  StringStringMap: mapOf('StringStringMap', str, str)
}
