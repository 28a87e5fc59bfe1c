'use strict'
// options.js - checks what the user passes, and says exactly what is wrong with it.

const { fileURLToPath } = require('node:url')
const { isMainThread } = require('node:worker_threads')
const { refuseLoneSurrogate } = require('./codecs')
const { typeError, rangeError, shown } = require('./errors')

// The flags of odm_options.
const FLAGS = { readOnly: 1, mustExist: 2, mustCreate: 4, verifyReads: 8, anyFileSystem: 16, salvage: 32 }
const NUMBERS = {
  capacity: Number.MAX_SAFE_INTEGER,
  capacityBytes: Number.MAX_SAFE_INTEGER,
  stripes: 64,
  fileMode: 0o777,
  waitMs: 2 ** 32 - 2
}
const OPEN_OPTIONS = ['key', 'value', 'schema', ...Object.keys(FLAGS), ...Object.keys(NUMBERS)]

// The main thread serves everybody: it does not wait half a minute for one stuck writer.
const WAIT_MS_MAIN_THREAD = 1000
const WAIT_ONLY_TRY = 2 ** 32 - 1

/** How many letters must be changed, added or left out to make b of a. */
function distance (a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1))
    }
    row = next
  }
  return row[b.length]
}

/** Throws if `options` is no object or has a name that is not known. */
function checkNames (options, known) {
  if (options === undefined) return
  if (typeof options !== 'object' || options === null) throw typeError(`options must be an object, not ${shown(options)}`)
  for (const name of Object.keys(options)) {
    if (known.includes(name)) continue
    const [nearest, far] = known
      .map((candidate) => [candidate, distance(name.toLowerCase(), candidate.toLowerCase())])
      .sort((a, b) => a[1] - b[1])[0]
    const hint = far <= 2 ? `, did you mean "${nearest}"?` : `. There are: ${known.join(', ')}`
    throw typeError(`Unknown option "${name}"${hint}`)
  }
}

/** The numbers that the addon's open takes: [flags, capacity, capacityBytes, stripes, fileMode, waitMs]. */
function openNumbers (options) {
  let flags = 0
  for (const [name, flag] of Object.entries(FLAGS)) {
    const on = options[name] ?? false
    if (typeof on !== 'boolean') throw typeError(`${name} must be true or false, not ${shown(on)}`)
    if (on) flags |= flag
  }
  const numbers = { ...NUMBERS }
  for (const [name, max] of Object.entries(NUMBERS)) {
    const n = options[name] ?? 0
    if (typeof n !== 'number') throw typeError(`${name} must be a number, not ${shown(n)}`)
    if (!Number.isInteger(n) || n < 0 || n > max) throw rangeError(`${name} must be an integer from 0 to ${max}, not ${n}`)
    numbers[name] = n
  }
  if (options.waitMs === undefined) numbers.waitMs = isMainThread ? WAIT_MS_MAIN_THREAD : 0
  else if (options.waitMs === 0) numbers.waitMs = WAIT_ONLY_TRY
  return [flags, numbers.capacity, numbers.capacityBytes, numbers.stripes, numbers.fileMode, numbers.waitMs]
}

/** A path from a string or a file URL. */
function pathOf (given) {
  const path = given instanceof URL ? fileURLToPath(given) : given
  if (typeof path !== 'string') throw typeError(`a path must be a string or a file URL, not ${shown(given)}`)
  if (path === '' || path.includes('\0')) throw rangeError(`${shown(path)} is no path`)
  refuseLoneSurrogate(path)
  return path
}

module.exports = { checkNames, openNumbers, pathOf, OPEN_OPTIONS }
