'use strict'
// worker.js - one store in a process of its own: loads it, asks it, prints {operation: ns per key} as JSON.
//
//   node --expose-gc worker.js ENGINE DIRECTORY COUNT SEED CLOCK
//
// CLOCK cpu: processor time of the whole process, its helper threads included; for machines that others use. wall: time.

const { engines } = require('./engines')
const { makeData } = require('./data')

const BATCHES = [8, 64, 256] // keys a call of getMany
const SECONDS_MIN = 0.5 // a reading operation is repeated for so long

const [, , name, directory, countText, seedText, clock] = process.argv
const count = Number(countText)

function nowNs () {
  if (clock === 'wall') return Number(process.hrtime.bigint())
  const { user, system } = process.cpuUsage()
  return (user + system) * 1000
}

function must (sum, should, what) {
  if (sum !== should) throw new Error(`${name}: ${what}: the lengths add up to ${sum}, not ${should}`)
}

async function main () {
  const { keys, absent, values, updates, order } = makeData(count, Number(seedText))
  const engine = engines[name](directory)
  const results = {}
  const inOrder = order.map((_, i) => i)
  const total = (texts) => texts.sizes.reduce((sum, size) => sum + size, 0)

  // Strings are made anew for each pass, before its clock starts: so none brings its hash along.
  async function timed (operation, prepare, run, should) {
    const passes = []
    const repeat = should !== undefined
    let spent = 0
    do {
      const input = prepare()
      global.gc()
      const start = nowNs()
      const sum = await run(...input)
      const took = nowNs() - start
      if (repeat) must(sum, should, operation)
      passes.push(took / count)
      spent += took
    } while (repeat && (spent < SECONDS_MIN * 1e9 || passes.length < 2))
    passes.sort((a, b) => a - b)
    results[operation] = passes[passes.length >> 1]
  }

  if (engine.open) await engine.open()
  await timed('set', () => [keys.fresh(inOrder), values.fresh(inOrder)], engine.load)
  await timed('get', () => [keys.fresh(order)], engine.get, total(values))
  await timed('get, absent', () => [absent.fresh(order)], engine.get, 0)
  if (engine.getMany) {
    for (const size of BATCHES) {
      await timed(`getMany, ${size}`, () => [keys.fresh(order)], (input) => engine.getMany(input, size), total(values))
    }
  }
  await timed('walk', () => [], engine.walk, total(values))
  await timed('update', () => [keys.fresh(order), updates.fresh(order)], engine.update)
  if (engine.setMany) {
    await timed('setMany, 64', () => [keys.fresh(order), values.fresh(order)], (k, v) => engine.setMany(k, v, 64))
  }
  await engine.close()
  console.log(JSON.stringify(results))
}

main()
