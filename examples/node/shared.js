#!/usr/bin/env node
'use strict'
// shared.js - two processes on one map: each reads at once what the other has just written.
//
//     node shared.js [directory]
const { fork } = require('node:child_process')
const { DiskMap, str, u53 } = require('opendiskmap')

const [, , path = 'shared.map', isChild] = process.argv
const map = DiskMap.open(path, { key: str, value: u53 })

/** Waits until the number under `key` is `n`, for 10 s at most. */
async function until (key, n) {
  const end = Date.now() + 10_000
  while (map.get(key) !== n) {
    if (Date.now() > end) throw new Error('the other process did not answer')
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

async function main () {
  if (!isChild) {
    map.delete('question') // Of an earlier run.
    map.delete('answer')
    fork(__filename, [path, 'child'])
  }
  for (let n = 1; n <= 5; n++) {
    if (isChild) {
      map.set('question', n)
      await until('answer', n * n)
    } else {
      await until('question', n)
      console.log(`the child asked ${n}, the parent put ${n * n}`)
      map.set('answer', n * n)
    }
  }
}

main()
