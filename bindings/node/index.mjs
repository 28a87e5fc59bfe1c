// index.mjs - the package for `import`: the very objects that `require` gives, so an instanceof holds across both.
import opendiskmap from './index.js'

export default opendiskmap
export const {
  DiskMap, U64StringMap, StringU64Map, StringStringMap, DiskMapError, struct,
  u8, u16, u32, u64, i8, i16, i32, i64, u53, f32, f64, bool, str, bytes, json, version
} = opendiskmap
