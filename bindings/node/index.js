'use strict'
// index.js - what the package gives. index.mjs gives the same to `import`.

const { DiskMap, U64StringMap, StringU64Map, StringStringMap } = require('./lib/map')
const { DiskMapError } = require('./lib/errors')
const { struct } = require('./lib/struct')
const { native } = require('./lib/native')
const {
  u8, u16, u32, u64, i8, i16, i32, i64, u53, f32, f64, bool, str, bytes, json
} = require('./lib/codecs')

module.exports = {
  DiskMap,
  U64StringMap,
  StringU64Map,
  StringStringMap,
  DiskMapError,
  struct,
  u8,
  u16,
  u32,
  u64,
  i8,
  i16,
  i32,
  i64,
  u53,
  f32,
  f64,
  bool,
  str,
  bytes,
  json,
  version: native.version
}
