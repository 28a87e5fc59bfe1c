// What the types must accept, and what they must refuse. Compiled, never run; for `require`.
import odm = require('opendiskmap')
const { DiskMap, U64StringMap, StringU64Map, struct, str, u64, u32, u53, f64, bool, bytes, json } = odm

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
function is<_T extends true> (): void {}

const visits = DiskMap.open('visits', { key: str, value: u64, capacity: 10 })
is<Same<ReturnType<typeof visits.get>, bigint | undefined>>()
visits.set('a', 1n).set('b', 2n)
const big: bigint = visits.increment('a', 2n)
const many: (bigint | undefined)[] = visits.getMany(['a'])
const outcomes: boolean[] = visits.writeMany([['set', 'a', 1n], ['insert', 'b', 2n], ['delete', 'c']])
for (const [key, value] of visits) { const k: string = key; const v: bigint = value; void k; void v }
const walk = visits.keys({ from: 5n })
const position: bigint = walk.position
const made: bigint = visits.getOrInsertComputed('a', (key) => BigInt(key.length))
const sum: bigint = visits.entry('a').andModify((n) => n + 1n).orInsert(1n)
const seen: number | undefined = visits.view('a', (lent) => lent.length)
visits.sync({ onProgress: ({ done, total }) => { void (done + total) }, signal: new AbortController().signal })
const report: Promise<odm.VerifyReport> = visits.verify()
const asMap: Pick<Map<string, bigint>, 'get' | 'has' | 'delete' | 'clear' | 'size'> = visits

// @ts-expect-error a u64 is a bigint
visits.set('a', 1)
// @ts-expect-error a str is a string
visits.get(5)
// @ts-expect-error no such option
DiskMap.open('visits', { key: str, value: u64, readonly: true })
// @ts-expect-error no such operation
visits.writeMany([['put', 'a', 1n]])
// @ts-expect-error a number can not be set
visits.size = 5
// @ts-expect-error a position is a bigint
visits.keys({ from: 5 })

const Player = struct({ id: u32, name: str, alive: bool, data: bytes, scores: [f64] })
const players = DiskMap.open('players', { key: u53, value: Player })
players.set(1, { id: 1, name: 'Ada', alive: true, data: new Uint8Array(1), scores: [1, 2] })
players.set(1, { id: 1, name: 'Ada', alive: true, data: Buffer.from('x'), scores: Float64Array.of(1) })
const player = players.get(1)
if (player !== undefined) {
  const name: string = player.name
  const first: number | undefined = player.scores[0]
  const plain: { id: number, name: string, alive: boolean, data: Uint8Array, scores: number[] } = player.toObject()
  players.set(2, player)
  void [name, first, plain]
}
for (const map of [new DiskMap(null, { key: str, value: Player }), DiskMap.open('players', { value: Player })]) {
  map.set('a', { id: 1, name: 'Ada', alive: true, data: new Uint8Array(1), scores: [1, 2] })
  const got = map.get('a')
  if (got !== undefined) map.set('b', got)
  is<Same<typeof got, odm.StructView<{ readonly id: typeof u32, readonly name: typeof str, readonly alive: typeof bool,
    readonly data: typeof bytes, readonly scores: readonly [typeof f64] }> | undefined>>()
  const one = { id: 1, name: '', alive: true, data: Buffer.from(''), scores: [] }
  const inserted: { id: number } = map.getOrInsert('a', one).toObject()
  void inserted
}
const byPlayer = new DiskMap(null, { key: Player, value: str })
byPlayer.set({ id: 1, name: 'Ada', alive: true, data: new Uint8Array(1), scores: [1, 2] }, 'x')
const toText = {
  name: 'n', encode: (n: number) => u32.encode(n), decode: (given: Uint8Array) => String(u32.decode(given))
}
const lossy = new DiskMap(null, { key: str, value: toText })
is<Same<ReturnType<typeof lossy.get>, string | undefined>>()
const opened = DiskMap.open('lossy', { key: str, value: toText })
is<Same<ReturnType<typeof opened.get>, string | undefined>>()
opened.set('a', 1)
const asIterable: IterableIterator<string> = visits.keys()
void asIterable
// @ts-expect-error a field is missing
players.set(1, { id: 1, name: 'Ada' })
// @ts-expect-error no such field
player?.nmae
// @ts-expect-error views are for reading
if (player) player.name = 'x'

const texts = U64StringMap.open('texts', { readOnly: true })
const text: string | undefined = texts.get(1n)
const counts: odm.DiskMap<string, bigint> = new StringU64Map([['a', 1n]])
const things = DiskMap.open<string, { x: number }>('things')
const x: number | undefined = things.get('a')?.x
const inMemory = new DiskMap([['a', { b: 1 }]])
const dates = DiskMap.open('dates', {
  key: str,
  value: { name: 'date', encode: (date: Date) => f64.encode(date.getTime()), decode: (given) => new Date(f64.decode(given)) }
})
const date: Date | undefined = dates.get('a')
try { visits.get('a') } catch (error) { if (error instanceof odm.DiskMapError && error.code === 'ODM_E_NO_SPACE') void error.errno }
void [big, many, outcomes, position, made, sum, seen, report, asMap, text, counts, x, inMemory, date, json]
