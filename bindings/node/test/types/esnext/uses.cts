// What holds with TypeScript's newest library too, where Map's iterators have map, filter, take. Compiled, never run.
import odm = require('opendiskmap')
const { DiskMap, struct, str, u64, u32 } = odm

const visits = DiskMap.open('visits', { key: str, value: u64 })
const asMap: Map<string, bigint> = visits
const asReadonly: ReadonlyMap<string, bigint> = visits
const plain = DiskMap.open('players', { key: str, value: struct({ id: u32 }) })
const players: ReadonlyMap<string, { readonly id: number }> = plain
const lengths: number[] = visits.keys().map((key) => key.length).take(3).toArray()
const iterator: MapIterator<[string, bigint]> = visits.entries()
using walk = visits.values()
void [asMap, asReadonly, players, lengths, iterator, walk]
