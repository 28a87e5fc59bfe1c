#!/usr/bin/env node
'use strict'
// entry.js - counts words, in a map that any number of these programs may count into at once: read an entry, decide, write
// only if nobody was faster; else again. No count is lost.
//
//     node entry.js [directory] < text
const fs = require('node:fs')
const { DiskMap, str, u53 } = require('opendiskmap')

const map = DiskMap.open(process.argv[2] ?? 'words.map', { key: str, value: u53 })
const lines = []
for (const word of fs.readFileSync(0, 'utf8').split(/\s+/).filter(Boolean)) {
  lines.push(`${word} ${map.increment(word)}`)
}
console.log(lines.join('\n'))

// increment is a short word for:
//     map.update(word, (n = 0) => n + 1)
// and that is one for:
//     const entry = map.entry(word)
//     if (entry.vacant) entry.orInsert(1)
//     else entry.andModify((n) => n + 1)
// but that the vacant one may be occupied by another process meanwhile, which update notices.
