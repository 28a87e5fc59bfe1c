'use strict'
// struct.js - the `struct` encoding: fields in order, natural C alignment, little-endian, read in place.
//
// Bytes: the fixed part, as a C struct, its size rounded up to its largest alignment. A str, bytes or list field is a slice
// {u32 offset, u32 count} there; what it names follows the fixed part, in the order of the fields, each 8-byte aligned.
// Padding is zero. The value ends where its last field ends.

const { inspect } = require('node:util')
const { Codec, builtIn, sourceOf, corrupt, refuseDetached, str, bytes } = require('./codecs')
const { typeError, rangeError, shown } = require('./errors')

const SLICE_SIZE = 8
const SLICE_ALIGNMENT = 4
const PAYLOAD_ALIGNMENT = 8
const NAME = /^[A-Za-z_][A-Za-z0-9_]*$/
const TAKEN = ['toObject', 'toJSON', 'constructor', '__proto__'] // a view has them itself

function taken (name) {
  return `a field can not be called ${name} in JavaScript, where objects have that themselves`
}

function aligned (at, alignment) {
  return Math.ceil(at / alignment) * alignment
}

/** A value of a struct, read field by field where it lies. */
class StructView {
  #source
  constructor (source) {
    this.#source = source
  }

  static sourceOf (view) {
    return view.#source
  }

  static is (value) {
    return typeof value === 'object' && value !== null && #source in value
  }
}

function isFieldType (type) {
  return type instanceof Codec || Array.isArray(type)
}

/** What a field is stored as, and how it is read. */
class Field {
  constructor (name, type, structName) {
    const list = Array.isArray(type)
    const codec = list ? type[0] : type
    const where = `${structName}.${name}`
    if (TAKEN.includes(name)) throw rangeError(`${where}: ${taken(name)}`)
    if (!NAME.test(name)) throw rangeError(`${shown(name)} is no name for a field`)
    if (!(codec instanceof Codec) || (list && type.length !== 1)) {
      throw typeError(`${where} must be an encoding such as u32, or a list such as [f64], not ${shown(type)}`)
    }
    const slice = list || codec === str || codec === bytes
    if (codec.size === 0 && (list || !slice)) {
      throw typeError(`${where} can not be ${list ? 'a list of ' : ''}${codec.name}: ` +
        'fields are numbers, bool, str, bytes, or lists of numbers or bool')
    }
    this.name = name
    this.where = where
    this.codec = codec
    this.isList = list
    this.isSlice = slice
    this.typeName = list ? `[${codec.name}]` : codec.name
    this.size = slice ? SLICE_SIZE : codec.size
    this.alignment = slice ? SLICE_ALIGNMENT : codec.size
    this.unit = list ? codec.size : 1 // bytes of an element
    this.offset = 0
  }

  read (source) {
    if (!this.isSlice) return this.#readAt(source, this.offset)
    const offset = source.view.getUint32(this.offset, true)
    const count = source.view.getUint32(this.offset + 4, true)
    const end = offset + count * this.unit
    if (end > source.size || offset % this.unit !== 0) {
      throw corrupt(`${this.where}: ${count} elements at ${offset} are not within the ` +
        `${source.size} bytes of the value`)
    }
    if (this.codec === str) return source.bytes.utf8Slice(offset, end)
    if (this.codec === bytes) return source.plain.subarray(offset, end)
    if (this.codec.array !== null) {
      return new this.codec.array(source.plain.buffer, source.plain.byteOffset + offset, count) // eslint-disable-line new-cap
    }
    return Array.from({ length: count }, (_, i) => this.#readAt(source, offset + i * this.unit))
  }

  #readAt (source, at) {
    try {
      return this.codec.read(source, at, this.codec.size)
    } catch (error) {
      throw this.#named(error)
    }
  }

  /** The bytes a slice names: what the user gave, checked. */
  payload (value) {
    try {
      if (this.codec === str) return str.encode(value)
      if (this.codec === bytes) return bytes.prepare(value)
      const items = ArrayBuffer.isView(value) && !(value instanceof DataView) ? value : Array.isArray(value) ? value : null
      if (items === null) throw typeError(`a list is an Array or a typed array, not ${shown(value)}`)
      if (items.length === 0 && ArrayBuffer.isView(items)) refuseDetached(items)
      const target = sourceOf(new Uint8Array(items.length * this.unit))
      for (let i = 0; i < items.length; i++) this.codec.write(target, items[i], i * this.unit)
      return target.plain
    } catch (error) {
      throw this.#named(error)
    }
  }

  writeFixed (target, value) {
    try {
      this.codec.write(target, value, this.offset)
    } catch (error) {
      throw this.#named(error)
    }
  }

  writeSlice (target, offset, payload) {
    target.view.setUint32(this.offset, offset, true)
    target.view.setUint32(this.offset + 4, payload.length / this.unit, true)
    target.plain.set(payload, offset)
  }

  #named (error) {
    error.message = `${this.where}: ${error.message}`
    return error
  }
}

function encode (fields, fixedSize, names, structName, value) {
  if (typeof value !== 'object' || value === null) throw typeError(`a ${structName} is an object, not ${shown(value)}`)
  for (const name of Object.keys(value)) {
    if (!names.has(name)) throw typeError(`${structName} has no field ${shown(name)}`)
  }
  let size = fixedSize
  const parts = fields.map((field) => {
    const given = value[field.name]
    if (given === undefined) throw typeError(`${field.where} is missing`)
    if (!field.isSlice) return given
    const payload = field.payload(given)
    const offset = aligned(size, PAYLOAD_ALIGNMENT)
    size = offset + payload.length
    return { offset, payload }
  })
  if (size > 2 ** 32 - 1) throw rangeError(`a ${structName} of ${size} bytes is too long`)
  const target = sourceOf(new Uint8Array(size))
  fields.forEach((field, i) => {
    if (field.isSlice) field.writeSlice(target, parts[i].offset, parts[i].payload)
    else field.writeFixed(target, parts[i])
  })
  return target.plain
}

/**
 * The encoding of objects with these fields: struct({ id: u32, name: str, scores: [f64] }).
 *
 * What a map gives is a view: each field is read when it is asked for. toObject() makes a plain object of it.
 */
function struct (description) {
  if (typeof description !== 'object' || description === null || Array.isArray(description)) {
    throw typeError(`struct takes an object with the fields, not ${shown(description)}`)
  }
  // Where a literal says __proto__: u32 it has no such field, but that prototype.
  if (isFieldType(Object.getPrototypeOf(description))) throw rangeError(`struct.__proto__: ${taken('__proto__')}`)
  const fields = Object.entries(description).map(([name, type]) => new Field(name, type, 'struct'))
  if (fields.length === 0) throw rangeError('a struct needs at least one field')
  const names = new Set(fields.map((field) => field.name))
  let end = 0
  let alignment = 1
  for (const field of fields) {
    field.offset = aligned(end, field.alignment)
    end = field.offset + field.size
    alignment = Math.max(alignment, field.alignment)
  }
  const fixedSize = aligned(end, alignment)
  const hasSlices = fields.some((field) => field.isSlice)

  class View extends StructView {
    toObject () {
      const source = StructView.sourceOf(this)
      return Object.fromEntries(fields.map((field) => {
        const value = field.read(source)
        return [field.name, field.isList ? Array.from(value) : field.codec === bytes ? value.slice() : value]
      }))
    }

    toJSON () {
      return this.toObject()
    }

    [inspect.custom] (depth, options) {
      return inspect(this.toObject(), options)
    }
  }
  for (const field of fields) {
    Object.defineProperty(View.prototype, field.name, {
      enumerable: true,
      get () {
        return field.read(StructView.sourceOf(this))
      }
    })
  }

  const structName = `struct{${fields.map((field) => `${field.name}:${field.typeName}`).join(',')}}`
  function viewOf (plain) {
    const fits = hasSlices ? plain.length >= fixedSize : plain.length === fixedSize
    if (!fits) {
      throw corrupt(`a ${structName} has ${hasSlices ? 'at least ' : ''}${fixedSize} bytes, ` +
        `but this value has ${plain.length}`)
    }
    return new View(sourceOf(plain))
  }
  return new Codec(structName, {
    prepare (value) {
      return encode(fields, fixedSize, names, structName, value)
    },
    write: bytes.write,
    long: bytes.long,
    read (source, start, size) {
      return viewOf(source.plain.slice(start, start + size))
    },
    inPlace (plain) {
      return viewOf(plain.byteOffset % PAYLOAD_ALIGNMENT === 0 ? plain : plain.slice())
    }
  })
}

// ---- schemas ---------------------------------------------------------------------------------------------------------

/** The encoding of that name; undefined if it is no built-in one. */
function codecNamed (name) {
  if (!name.startsWith('struct{') || !name.endsWith('}')) return builtIn.get(name)
  const description = Object.create(null)
  for (const part of name.slice('struct{'.length, -1).split(',')) {
    const [field, type, ...rest] = part.split(':')
    const list = type?.startsWith('[') && type.endsWith(']')
    const codec = builtIn.get(list ? type.slice(1, -1) : type)
    if (codec === undefined || rest.length > 0 || field in description) return undefined
    description[field] = list ? [codec] : codec
  }
  try {
    return struct(description)
  } catch {
    return undefined // Written by something that knows more than this version.
  }
}

/** Why codecNamed gives none although the names of all types are known: a sentence, or ''. */
function whyNoCodec (schema) {
  const name = TAKEN.find((name) => schema.includes(`{${name}:`) || schema.includes(`,${name}:`))
  if (name === undefined) return ''
  return `: ${taken(name)}. Pass a struct that calls it otherwise, and schema: ${JSON.stringify(schema)}`
}

/** [key, value] of a schema such as "str/u64", each undefined if it is no built-in encoding. */
function codecsOfSchema (schema) {
  const parts = schema.split('/')
  return parts.length === 2 ? parts.map(codecNamed) : [undefined, undefined]
}

module.exports = { struct, codecsOfSchema, whyNoCodec }
