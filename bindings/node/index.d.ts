/// <reference lib="esnext.disposable" />

/**
 * A `Map` that lives on disk and is shared, live, by every process and thread that opens it.
 *
 * ```js
 * const { DiskMap, str, u64 } = require('opendiskmap')
 * const visits = DiskMap.open('visits.map', { key: str, value: u64 })
 * visits.increment('/index.html')
 * ```
 * @packageDocumentation
 */

declare global {
  // TypeScript before 5.6 has none. In later ones iterators are of this type; esnext gives it map, filter, take.
  interface IteratorObject<T, TReturn, TNext> {}
}

// ---- encodings -------------------------------------------------------------------------------------------------------

/**
 * How keys or values become bytes. One of the constants below, `struct(...)`, or an own one: an object with these three.
 * The name is stored in the map and compared at every later open. `Out` is what comes back, if that is of another type.
 */
export interface Encoding<T, Out = T> {
  /** As it stands in the map's schema. For an own one: letters, digits and `_ . : @ -`, up to 64 of them. */
  readonly name: string
  /** The bytes of a value. The map copies them. */
  encode(value: T): Uint8Array
  /**
   * The value of bytes that `encode` made, here or in another language; never undefined. `bytes` is a copy of one's
   * own. A built-in one throws a `DiskMapError` with code `ODM_E_CORRUPT` for bytes that are none of the encoding.
   */
  decode(bytes: Uint8Array): Out
}

/** A built-in encoding. Its bytes are the same in every language that opendiskmap is bound to. */
export interface Codec<T> extends Encoding<T> {
  /** Bytes of every value; 0 if they differ. */
  readonly size: number
}

/** An encoding of numbers: what `increment` works on, and what lists in a struct hold. */
export interface NumberCodec<T extends number | bigint> extends Codec<T> {
  /** Zero of the type. */
  readonly number: T
}

/** 8 bits, unsigned: 0 to 255. */
export const u8: NumberCodec<number>
/** 16 bits, unsigned, little-endian. */
export const u16: NumberCodec<number>
/** 32 bits, unsigned, little-endian. */
export const u32: NumberCodec<number>
/** 64 bits, unsigned, little-endian: a bigint. See `u53` for numbers. */
export const u64: NumberCodec<bigint>
/** 8 bits, signed: -128 to 127. */
export const i8: NumberCodec<number>
/** 16 bits, signed, little-endian. */
export const i16: NumberCodec<number>
/** 32 bits, signed, little-endian. */
export const i32: NumberCodec<number>
/** 64 bits, signed, little-endian: a bigint. */
export const i64: NumberCodec<bigint>
/** The bytes of a `u64`, as a number: a RangeError above 2 ** 53 - 1. In the schema it is `u64`. */
export const u53: NumberCodec<number>
/** IEEE 754, 32 bits: a number that is not exact in 32 bits comes back rounded. */
export const f32: NumberCodec<number>
/** IEEE 754, 64 bits. As keys, 0 and -0 are one, and so are all NaN. */
export const f64: NumberCodec<number>
/** One byte, 0 or 1. */
export const bool: Codec<boolean>
/** UTF-8. A string with a lone surrogate is a RangeError. */
export const str: Codec<string>
/** As given. A `Uint8Array` (a `Buffer` is one); what comes back is a copy of one's own. */
export const bytes: Codec<Uint8Array>
/**
 * JSON text, as `JSON.stringify` makes it. What that would lose is an error, however deep: typed arrays, `Map`, `Set`,
 * promises, functions, symbols, bigints, `undefined` in an array are a TypeError; NaN and Infinity a RangeError. A
 * property that is `undefined` is left out, an object with `toJSON` is what that gives (a `Date` comes back as text),
 * an object of another class comes back as a plain one, and -0 is 0.
 */
export const json: Codec<any>

type ListOf<T, N> = N extends 'read' ? ReadonlyArray<T> | ArrayLike<T> & Iterable<T> : ReadonlyArray<T> | ArrayLike<T>
type FieldType = Codec<any> | readonly [Codec<any>]
type FieldIn<F> = F extends readonly [Codec<infer T>] ? ListOf<T, 'write'> : F extends Codec<infer T> ? T : never
type FieldView<F> = F extends readonly [Codec<infer T>] ? ListOf<T, 'read'> : F extends Codec<infer T> ? T : never
type FieldObject<F> = F extends readonly [Codec<infer T>] ? T[] : F extends Codec<infer T> ? T : never

/** What a struct takes: an object with its fields. */
export type StructInput<F> = { readonly [K in keyof F]: FieldIn<F[K]> }

/**
 * A struct as a map gives it: a field is read when it is asked for, where it lies. Lists of numbers are typed arrays. A list,
 * text or bytes that reach out of the value throw a `DiskMapError` that names the field.
 */
export type StructView<F> = { readonly [K in keyof F]: FieldView<F[K]> } & {
  /** A plain object: lists are Arrays, nothing points into the map. */
  toObject(): { [K in keyof F]: FieldObject<F[K]> }
  /** The same, for JSON.stringify. */
  toJSON(): { [K in keyof F]: FieldObject<F[K]> }
}

/** The encoding of a struct. Takes objects and views, gives views. */
export interface StructCodec<F> extends Codec<StructInput<F>> {
  /** A view of these very bytes: nothing is copied. Good for `map.view(key, (bytes) => Type.decode(bytes).field)`. */
  decode(bytes: Uint8Array): StructView<F>
  /** Marks the type of what comes back. Not there at run time. */
  readonly view?: StructView<F>
}

/**
 * The encoding of objects with these fields, in C's layout, so that a C program reads them in place.
 * Fields are numbers, `bool`, `str`, `bytes`, or lists of numbers or `bool`, written `[f64]`.
 *
 * ```js
 * const Player = struct({ id: u32, name: str, scores: [f64] })
 * ```
 */
export function struct<const F extends { readonly [name: string]: FieldType }>(fields: F): StructCodec<F>

/** What a map with this encoding takes. */
export type InputOf<E> =
  E extends StructCodec<infer F> ? StructInput<F> | StructView<F> : E extends Encoding<infer T, any> ? T : never
/** What a map with this encoding gives. */
export type OutputOf<E> = E extends StructCodec<infer F> ? StructView<F> : E extends Encoding<any, infer T> ? T : never

// ---- opening ---------------------------------------------------------------------------------------------------------

/** How a map is opened. A name that is not here is a TypeError that names the nearest. */
export interface MapOptions {
  /** Open for reading only: locks nothing, writes nothing, needs no permission to write. The map must exist. */
  readOnly?: boolean
  /** `ODM_NOT_FOUND` instead of making a map. */
  mustExist?: boolean
  /** `ODM_EXISTS` instead of opening one that is there. */
  mustCreate?: boolean
  /** Check both checksums of an entry whenever it is read. */
  verifyReads?: boolean
  /** Open also where the promises do not hold: network and layered file systems. */
  anyFileSystem?: boolean
  /** Keep what is whole of a damaged map. */
  salvage?: boolean
  /** Entries to make room for when the map is made. A hint: nothing has to be sized. */
  capacity?: number
  /** Bytes of keys and values to expect, when the map is made. A hint. */
  capacityBytes?: number
  /** Locks for writing, a power of two up to 64, fixed when the map is made. 0: 16. */
  stripes?: number
  /** Permission bits of new files. 0: 0o644 less the umask. */
  fileMode?: number
  /**
   * The longest wait for one live writer, in ms; then `ODM_E_BUSY`. 0: only try. By default 1,000 on the main thread, which
   * serves everybody, and 30,000 elsewhere. The dead are never waited for.
   */
  waitMs?: number
  /** Instead of "key/value": another text to be stored and compared; null: none. */
  schema?: string | null
}

/** With the types of keys and values. */
export interface TypedMapOptions<KE, VE> extends MapOptions {
  /** What keys are. If it is left out: what the map says, or `str` for a new one. */
  key: KE
  /** What values are. If it is left out: what the map says, or `json` for a new one. */
  value: VE
}

/** Where a walk goes on. */
export interface WalkOptions {
  /** A `position` of an earlier walk, in this process or another; see there. 0n: the start. */
  from?: bigint
}

/** For `sync`, `compact`, `verify` and `backup`. */
export interface WorkOptions {
  /** Called after every step (some 50 ms of work). `total` is 0 as long as it is not known. */
  onProgress?: (progress: { done: number, total: number }) => void
  /** Rejects with the signal's reason at the end of the step that runs. */
  signal?: { readonly aborted: boolean, readonly reason?: any }
}

/** What `stat` tells. Sizes are bytes; places in the log (head, tail, ...) are bigints. */
export interface Statistics {
  /** Random, made with the map; hexadecimal. */
  mapId: string
  /** Locks for writing. */
  stripes: number
  /** Entries; exact while no write is in flight. */
  count: number
  /** Of the index. */
  slots: number
  /** Entries the index has room for as it is: 7/8 of the slots. It grows by itself. */
  capacity: number
  /** Slots that removed keys still take. */
  tombstones: number
  /** Entries that count: headers, keys and values with padding. */
  liveBytes: number
  /** The log, from head to tail. */
  logBytes: number
  /** Of the log, what does not count: replaced, removed, or never completed. `compact` gives it back. */
  deadBytes: number
  /** Files made ready for later. */
  reservedBytes: number
  /** The index's file. */
  indexBytes: number
  /** Files this process still maps although they left the map. */
  unlinkedBytes: number
  /** Files of the log. */
  segments: number
  /** Times a part of the index was split, since the index was built. */
  splits: number
  /** Times a writer had to sleep for a lock, since boot. */
  lockWaits: number
  /** Bytes compaction has moved, since boot. */
  compactedBytes: number
  /** Entries that the last rebuild of the index read, or `salvage` kept. */
  recoveryRecords: number
  /** Bytes it left out, because they were not whole. */
  recoveryBytesCut: number
  /** 0 none; 1 rebuilt, nothing lost; 2 rebuilt as after power loss; 3 a read-only handle built its own index. */
  recoveryKind: number
  /** 1 after a failed sync: every sync fails until `compact` has mended it. */
  syncFailed: number
  /** Where the oldest entry lies. */
  head: bigint
  /** Where the next one goes. */
  tail: bigint
  /** All below is known to be on disk. */
  watermark: bigint
  /** Of a damaged entry that compaction will not pass; else 0n. */
  compactionStoppedAt: bigint
  /** Where the last rebuild cut the log, or met the first damage; else 0n. */
  recoveryFrom: bigint
}

/** What `verify` found. */
export interface VerifyReport {
  /** Entries of the log that were read. */
  records: number
  /** Of the log, that were read. */
  bytes: number
  /** Entries of these that are not whole. A file that is missing counts as one. */
  badRecords: number
  /** Slots of the index that name no entry, or a wrong one. */
  badSlots: number
  /** The first damage: the number of its file of the log; 0: it is in the index. */
  badNumber: number
  /** And its offset in that file, in bytes. */
  badOffset: number
}

// ---- the map ---------------------------------------------------------------------------------------------------------

/**
 * An iterator over a map, as Map's. It reads some entries ahead; what this map changes meanwhile is seen, what others change
 * within those few may be missed. `break` ends it and lets go of what it holds.
 */
export interface DiskMapIterator<T> extends IteratorObject<T, undefined, unknown> {
  /**
   * Where another walk, in any process, can go on: `map.entries({ from: position })`. That one gives all that has not
   * come yet, and again some of what has. Means nothing for another map. Stays readable after the walk: where it was
   * left, or 2n ** 64n - 1n, the end.
   *
   * It stands at the start of a chunk of the index, of some 4,096 keys at most (of more, where many fell together):
   * whoever takes fewer at a time comes to the same position, and the same entries, again and again. Take more, or keep
   * the walk.
   */
  readonly position: bigint
  /** The next. Throws for one that can not be decoded; then it may be called for the one after it. */
  next(): IteratorResult<T, undefined>
  /** Ends the walk, as `break` does. */
  return(value?: any): IteratorResult<T, any>
  /** The walk itself. */
  [Symbol.iterator](): DiskMapIterator<T>
  /** Ends the walk: for `using`. */
  [Symbol.dispose](): void
}

/** A key, found or vacant. Holds no lock: a write that comes too late reads again and decides again. */
export interface Entry<K, VIn, V = VIn> {
  /** A copy, if it is an object. */
  readonly key: K
  /** As last read or written; undefined if vacant. */
  readonly value: V | undefined
  /** Whether there was none. */
  readonly vacant: boolean
  /** The value, which becomes `value` if the entry is vacant. */
  orInsert(value: VIn): V
  /** Likewise, computed only if it is vacant. */
  orInsertWith(make: (key: K) => VIn): V
  /** Changes the value, if there is one. `change` may be called again if somebody was faster. */
  andModify(change: (value: V) => VIn): this
}

/** One of many writes: its outcome is false if `insert` found the key there, or `delete` did not. */
export type Write<K, V> = readonly ['set' | 'insert', K, V] | readonly ['delete', K]

/**
 * `Map`, on disk. Differences: the order of a walk means nothing; `undefined` is no value; keys and values are copied in and
 * out; others may change the map at any moment.
 *
 * A map is used in the thread that opened it. Other threads and processes open it by its path.
 *
 * Every method throws a `DiskMapError` with code `ODM_CLOSED` after `close`, and with the engine's code if the map can not
 * do what was asked; a TypeError or RangeError for a key or value that the encoding can not hold. Bytes in the map that
 * are none of its encoding are `ODM_E_CORRUPT`.
 */
export class DiskMap<K = any, VIn = any, V = VIn> implements Iterable<[K, V]> {
  /** A map in memory, of this process only. */
  constructor(entries?: Iterable<readonly [K, VIn]> | null)
  /** With the types of keys and values; without, `str` and `json`. */
  constructor(entries: Iterable<readonly [K, VIn]> | null | undefined,
    options: MapOptions & { key?: Encoding<K, any>, value?: Encoding<VIn, V> })

  /**
   * Opens the map in the directory `path`, or makes it. Takes no time that grows with the map, unless its index has to be
   * rebuilt, after power loss for one.
   */
  static open<KE extends Encoding<any>, VE extends Encoding<any>>(path: string | URL, options: TypedMapOptions<KE, VE>):
    DiskMap<InputOf<KE>, InputOf<VE>, OutputOf<VE>>
  /** With the types that the map says it holds. A new one holds `str` and `json`. */
  static open<K = any, VIn = any, V = VIn>(path: string | URL,
    options?: MapOptions & { key?: Encoding<K, any>, value?: Encoding<VIn, V> }): DiskMap<K, VIn, V>

  /** The value; undefined if the key is absent. Takes no lock and waits for nobody. */
  get(key: K): V | undefined
  /** Whether the key is there. */
  has(key: K): boolean
  /** When it returns, every process sees it, and it survives the death of this one; power loss after a `sync`. */
  set(key: K, value: VIn): this
  /** Whether the key was there. */
  delete(key: K): boolean
  /** Removes all entries. */
  clear(): void
  /** Entries; exact while no write is in flight. */
  readonly size: number
  /** A walk over the keys; their order means nothing. The map may change meanwhile; each that stays comes once. */
  keys(options?: WalkOptions): DiskMapIterator<K>
  /** Likewise, over the values. */
  values(options?: WalkOptions): DiskMapIterator<V>
  /** Likewise, over [key, value]. */
  entries(options?: WalkOptions): DiskMapIterator<[K, V]>
  /** The same as `entries`, for `for ... of`. */
  [Symbol.iterator](): DiskMapIterator<[K, V]>
  /** Calls `use` for each entry, with `receiver` as `this`. */
  forEach(use: (value: V, key: K, map: this) => void, receiver?: any): void
  /** 'DiskMap' */
  readonly [Symbol.toStringTag]: string

  /**
   * The value, as `get` gives it; if the key is absent, inserts this one first. One of several callers at once wins,
   * and all get its value.
   */
  getOrInsert(key: K, value: VIn): V
  /** Likewise, with a value that is computed only if the key is absent. */
  getOrInsertComputed(key: K, make: (key: K) => VIn): V

  /** The key, found or vacant. */
  entry(key: K): Entry<K, VIn, V>
  /**
   * Sets what `change` makes of the value (undefined: absent), or removes the key if it makes undefined. If somebody else
   * changed the key meanwhile, `change` is called again with the new value. Gives what was set.
   */
  update(key: K, change: (value: V | undefined) => VIn | undefined): VIn | undefined
  /** Adds `by`, 1 if it is left out, to a number; an absent one is 0. No count is lost, however many count. */
  increment(key: K, by?: VIn): V
  /** Sets the value only if it is `expected` now, byte for byte; undefined stands for absent. Whether it did. */
  compareAndSet(key: K, expected: VIn | undefined, value: VIn | undefined): boolean

  /** The values of many keys, in their order, in a fraction of the time of as many `get`s. */
  getMany(keys: Iterable<K>): (V | undefined)[]
  /** Sets many, in order. Not all or nothing: an error tells in `done` how many were set. */
  setMany(entries: Iterable<readonly [K, VIn]>): this
  /** Many writes in order, and the outcome of each. Not all or nothing: an error tells in `done` how many were done. */
  writeMany(writes: Iterable<Write<K, VIn>>): boolean[]

  /**
   * Calls `use` with the value's bytes where they lie, without a copy if they are many; gives what `use` gives. undefined if
   * the key is absent. After the call the bytes are gone (length 0). They are for reading only: **writing to them ends the
   * process**, for the map's memory is write-protected.
   */
  view<R>(key: K, use: (bytes: Uint8Array) => R): R | undefined

  /** Kept when all that any process wrote before survives power loss. */
  sync(options?: WorkOptions): Promise<void>
  /** Gives back all dead space, and makes the index as small as it can be. */
  compact(options?: WorkOptions): Promise<void>
  /** Reads every entry and checks every checksum. */
  verify(options?: WorkOptions): Promise<VerifyReport>
  /** Copies the map, consistently and while others write, to a directory that is absent or empty. */
  backup(path: string | URL, options?: WorkOptions): Promise<void>

  /** Sizes, and what has happened to the map. Looks at the whole index: milliseconds if it is large. */
  stat(): Statistics
  /** Entries the index has room for as it is. It grows by itself. */
  readonly capacity: number
  /** Entries / slots of the index. */
  readonly loadFactor: number
  /** "key/value", as stored in the map; '' if it was made without. */
  readonly schema: string
  /** undefined for a map in memory. */
  readonly path: string | undefined
  /** Whether `close` was called. */
  readonly closed: boolean
  /** Lets go of the map. Once more does no harm. Not needed before the end of the process. */
  close(): void
  /** The same, for `using`. */
  [Symbol.dispose](): void
}

interface ReadyMade<K, V> {
  /** A map in memory, of this process only. */
  new (entries?: Iterable<readonly [K, V]> | null, options?: MapOptions): DiskMap<K, V>
  /** Opens the map in the directory `path`, or makes it. */
  open(path: string | URL, options?: MapOptions): DiskMap<K, V>
  /** `DiskMap`'s own methods. */
  readonly prototype: DiskMap<K, V>
}
/** `u64/str`: bigint to string. */
export const U64StringMap: ReadyMade<bigint, string>
/** `str/u64`: string to bigint. */
export const StringU64Map: ReadyMade<string, bigint>
/** `str/str`: string to string. */
export const StringStringMap: ReadyMade<string, string>

/** What a map could not do. */
export class DiskMapError extends Error {
  /** The package makes them; a test of one's own may. */
  constructor(code: DiskMapErrorCode, message: string, detail?: { path?: string, errno?: number })
  /** 'DiskMapError' */
  readonly name: 'DiskMapError'
  /** What kind of error: the README lists them. */
  readonly code: DiskMapErrorCode
  /** The operating system's number, if it had a part in it. */
  readonly errno?: number
  /** The map's path. */
  readonly path?: string
  /** Of `setMany` and `writeMany`: how many writes were done before. */
  readonly done?: number
}

export type DiskMapErrorCode =
  | 'ODM_CLOSED'
  | 'ODM_NOT_FOUND'
  | 'ODM_EXISTS'
  | 'ODM_E_INVALID'
  | 'ODM_E_IO'
  | 'ODM_E_NO_SPACE'
  | 'ODM_E_NO_MEMORY'
  | 'ODM_E_CORRUPT'
  | 'ODM_E_VERSION'
  | 'ODM_E_READ_ONLY'
  | 'ODM_E_TOO_BIG'
  | 'ODM_E_MISMATCH'
  | 'ODM_E_BUSY'
  | 'ODM_E_UNSUPPORTED'

/** The version of the engine: "1.0.0". */
export const version: string
