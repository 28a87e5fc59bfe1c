#!/usr/bin/env node
'use strict'
// quickstart.js - set, get, insert if absent, delete. Run it twice: what the first run put is there.
//
//     npm install opendiskmap && node quickstart.js [directory]
const { DiskMap, str } = require('opendiskmap')

async function main () {
  const map = DiskMap.open(process.argv[2] ?? 'colours.map', { key: str, value: str }) // Makes it if there is none.
  console.log(`entries found: ${map.size}`)

  map.set('red', '#ff0000').set('grey', '#808080')
  console.log(`red is ${map.get('red')}`)

  const inserted = map.compareAndSet('sky', undefined, '#87ceeb') // Only if absent. Of several processes one inserts.
  console.log(`sky was ${inserted ? 'inserted' : 'there'}`)

  map.delete('grey')
  console.log(`grey after its removal: ${map.get('grey')}`)
  await map.sync() // From here on all of it survives power loss too.
  map.close()
}

main().catch((error) => {
  console.error(`${error.code}: ${error.message}`) // What, which file, the cure.
  process.exitCode = 1
})
