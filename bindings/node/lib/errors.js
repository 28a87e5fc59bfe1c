'use strict'
// errors.js - what is thrown. Misuse is a TypeError or a RangeError with the codes of Node.js's own errors; all else is a
// DiskMapError.

const { native } = require('./native')

/**
 * Something a map could not do. `code` says what kind: 'ODM_E_NO_SPACE', 'ODM_E_CORRUPT', ..., 'ODM_CLOSED' for a map that
 * was closed. `errno` is the operating system's, if it had a part in it; `path` the map's.
 */
class DiskMapError extends Error {
  constructor (code, message, { path, errno } = {}) {
    super(message)
    this.code = code
    if (path !== undefined) this.path = path
    if (errno) this.errno = errno
  }

  get name () {
    return 'DiskMapError'
  }
}

/** The error for a status of the engine, with its detail [status, errno, message]. */
function statusError (operation, path, status, [detailStatus, errno, detail]) {
  const code = native.statusName(status)
  const why = detailStatus === status && detail !== '' ? detail : native.statusMessage(status)
  return new DiskMapError(code, `${operation}: ${why} (${path ?? 'in memory'})`, { path, errno })
}

const bare = new WeakSet()

/** A DiskMapError made where the map is not known, as in a codec; located() adds it. */
function bareError (code, message) {
  const error = new DiskMapError(code, message)
  bare.add(error)
  return error
}

/** The error, told as those of the engine are: with operation and path. */
function located (error, operation, path) {
  if (!bare.delete(error)) return error
  error.message = `${operation}: ${error.message} (${path ?? 'in memory'})`
  if (path !== undefined) error.path = path
  return error
}

function typeError (message) {
  const error = new TypeError(message)
  error.code = 'ERR_INVALID_ARG_TYPE'
  return error
}

function rangeError (message) {
  const error = new RangeError(message)
  error.code = 'ERR_OUT_OF_RANGE'
  return error
}

/** How a value looks in a message: short, with its type. */
function shown (value) {
  if (value === null || value === undefined) return String(value)
  if (typeof value === 'string') return JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}…` : value)
  if (typeof value === 'bigint') return `${value}n`
  if (typeof value === 'function') return 'a function'
  if (typeof value === 'object') return `an object of ${value.constructor?.name ?? 'no class'}`
  return String(value)
}

module.exports = { DiskMapError, statusError, bareError, located, typeError, rangeError, shown }
