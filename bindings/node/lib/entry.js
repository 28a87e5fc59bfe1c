'use strict'
// entry.js - one key of a map, found or vacant, to be changed only if nobody else was faster.
//
// An entry holds no lock. It remembers the version it was read at; a write that finds another one reads again and decides
// again.

class Entry {
  #handle
  #key
  #found // {value, low, high}
  #isCurrent = true

  constructor (handle, key) {
    this.#handle = handle
    // What may change under us is copied.
    this.#key = typeof key === 'object' ? handle.key.decode(handle.key.encode(key)) : key
    this.#found = handle.entryGet('entry', this.#key)
  }

  get key () {
    return this.#key
  }

  /** The value, as last read or written; undefined if vacant. */
  get value () {
    return this.#found.value
  }

  get vacant () {
    return this.#found.value === undefined
  }

  #read () {
    this.#found = this.#handle.entryGet('entry', this.#key)
    this.#isCurrent = true
  }

  #put (value) {
    const handle = this.#handle
    const prepared = handle.preparedValue(value)
    if (!handle.entryPut('entry', this.#key, prepared, this.#found)) return false
    this.#found = { value: handle.readBack(prepared), low: 0, high: 0 }
    this.#isCurrent = false // The put has made a new version, which is not known here.
    return true
  }

  orInsert (value) {
    return this.orInsertWith(() => value)
  }

  orInsertWith (make) {
    if (!this.vacant) return this.value
    const value = make(this.#key)
    while (this.vacant && !this.#put(value)) this.#read()
    return this.value
  }

  andModify (change) {
    if (!this.#isCurrent) this.#read()
    while (!this.vacant && !this.#put(change(this.value))) this.#read()
    return this
  }
}

module.exports = { Entry }
