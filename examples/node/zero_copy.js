#!/usr/bin/env node
'use strict'
// zero_copy.js - a struct as a value, read field by field where it lies. examples/c/zero_copy.c reads the same map.
//
//     node zero_copy.js [directory]
const { DiskMap, struct, str, f64, u64 } = require('opendiskmap')

const City = struct({ latitude: f64, longitude: f64, people: u64 }) // The layout of the struct in C.
const map = DiskMap.open(process.argv[2] ?? 'cities.map', { key: str, value: City })
map.set('Rome', { latitude: 41.9, longitude: 12.5, people: 2750000n })

// Inside view nothing is copied, and what is lent stays as it is while others write; afterwards it is gone.
const people = (bytes) => City.decode(bytes).people
const [then, now] = map.view('Rome', (before) => {
  map.update('Rome', (city) => ({ ...city.toObject(), people: city.people + 1n }))
  return [people(before), map.view('Rome', people)]
})
console.log(`then ${then}, now ${now} people`)
