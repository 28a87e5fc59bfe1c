// The same for `import`: named and default, one and the same class.
import opendiskmap, { DiskMap, str, u53, type Codec, type DiskMapIterator } from 'opendiskmap'

const map: opendiskmap.DiskMap<string, number> = DiskMap.open('map', { key: str, value: u53 })
const codec: Codec<string> = opendiskmap.str
const keys: DiskMapIterator<string> = map.keys()
// @ts-expect-error a u53 is a number
map.set('a', 1n)
void [codec, keys]
