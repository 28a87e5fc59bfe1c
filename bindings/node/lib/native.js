'use strict'
// native.js - finds and loads the compiled part, and shares two buffers with it.
//
// scratch.bytes is where keys and values are written for a call, and where short values come back; see src/addon.c. It has
// the same methods as a packer (pack.js), so codecs write to both alike.

const fs = require('node:fs')
const path = require('node:path')

const SCRATCH_SIZE_MIN = 64 * 1024
const SCRATCH_SIZE_MAX = 64 * 1024 * 1024 // the longest key, if each of its bytes might become three

// Alpine and others: a binary for glibc does not belong there, and the other way round. musl's file has different names, such
// as ld-musl-x86_64.so.1 and libc.so; glibc's is libc.so.6, once libc-2.31.so.
function isMusl () {
  try {
    return !/\/libc(\.so\.6|-2\.\d+\.so)\b/.test(fs.readFileSync('/proc/self/maps', 'latin1'))
  } catch {
    return false
  }
}

function load () {
  const root = path.join(__dirname, '..')
  const platform = `${process.platform}-${process.arch}`
  const name = process.platform === 'linux' ? `${platform}-${isMusl() ? 'musl' : 'glibc'}` : platform
  const files = [
    path.join(root, 'prebuilds', `${name}.node`),
    path.join(root, 'src', 'build', 'Release', 'opendiskmap.node') // what `npm run build` makes
  ]
  const file = files.find((candidate) => fs.existsSync(candidate))
  if (file !== undefined) return require(file)
  let there = []
  try {
    there = fs.readdirSync(path.join(root, 'prebuilds')).map((entry) => entry.replace(/\.node$/, ''))
  } catch {}
  const error = new Error(`opendiskmap has no binary for this platform, ${name}. ` +
    `It has some for: ${there.join(', ') || 'none'}. ` +
    'On 64-bit Linux, with a C compiler, one is made by: npm explore opendiskmap -- npm run build')
  error.code = 'ODM_E_UNSUPPORTED'
  throw error
}

const native = load()
const state = new Uint32Array(4)
const listOf = (...items) => items

const scratch = {
  bytes: Buffer.alloc(0), // to write to
  plain: new Uint8Array(0), // the same memory, without Buffer's species
  view: new DataView(new ArrayBuffer(0)),
  size: 0,

  // Makes room for `size` bytes. What is written already stays.
  ensure (size) {
    if (size <= this.size) return
    if (size > SCRATCH_SIZE_MAX) {
      const error = new RangeError('a key is shorter than 16 MiB')
      error.code = 'ODM_E_TOO_BIG'
      throw error
    }
    const room = Math.max(SCRATCH_SIZE_MIN, 2 ** Math.ceil(Math.log2(size)))
    const memory = new ArrayBuffer(room)
    new Uint8Array(memory).set(this.plain)
    this.bytes = Buffer.from(memory)
    this.plain = new Uint8Array(memory)
    this.view = new DataView(memory)
    this.size = room
    native.share(this.plain, state, listOf)
  }
}
scratch.ensure(SCRATCH_SIZE_MIN)

module.exports = { native, scratch, state }
