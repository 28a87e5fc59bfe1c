#!/usr/bin/env node
'use strict'
// walk.js - walks over a map, deletes entries during the walk, stops, and goes on from there.
//
//     node walk.js [directory]
const { DiskMap, u32, bytes } = require('opendiskmap')

const COUNT = 10000
const map = DiskMap.open(process.argv[2] ?? 'numbers.map', { key: u32, value: bytes })
const nothing = new Uint8Array(0)
map.setMany(Array.from({ length: COUNT }, (_, n) => [n, nothing]))

const seen = new Set()
function visit (n) {
  seen.add(n)
  if (n % 2 === 1) map.delete(n) // What a walk has met may go, and so may what it has not.
}

const first = map.keys()
for (let i = 0; i < COUNT / 3; i++) visit(first.next().value)
const { position } = first // Any process may go on from it.
first.return() // What `break` does in a loop.

for (const n of map.keys({ from: position })) visit(n)
console.log(`missed: ${COUNT - seen.size}, left: ${map.size}`)
