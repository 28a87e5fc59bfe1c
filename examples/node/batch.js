#!/usr/bin/env node
'use strict'
// batch.js - many keys in one call: sets, inserts and deletes mixed, then many gets at once.
//
//     node batch.js [directory]
const { StringStringMap } = require('opendiskmap')

const map = StringStringMap.open(process.argv[2] ?? 'fruit.map')
const writes = [
  ['set', 'apple', 'red'],
  ['insert', 'pear', 'yellow'], // Only if it is absent.
  ['delete', 'plum'],
  ['set', 'peach', 'round']
]
map.writeMany(writes).forEach((done, i) => console.log(`${writes[i][0]} ${writes[i][1]}: ${done ? 'done' : 'not done'}`))

const keys = ['apple', 'pear', 'plum', 'peach']
map.getMany(keys).forEach((value, i) => console.log(`${keys[i]}: ${value ?? 'absent'}`))
