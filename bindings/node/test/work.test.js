'use strict'
// Long work: promises, progress, cancelling, and what the event loop does meanwhile.

const { test, describe } = require('node:test')
const assert = require('node:assert/strict')
const fs = require('node:fs')
const { DiskMap, U64StringMap, StringStringMap, str } = require('opendiskmap')
const { mapPath } = require('./support')

const filled = (where, count = 20000) => U64StringMap.open(where)
  .setMany(Array.from({ length: count }, (_, i) => [BigInt(i), `value ${i}`]))

// Does the version of the engine that this is built with have it?
async function has (operation, ...args) {
  try {
    await new StringStringMap()[operation](...args)
    return true
  } catch (error) {
    return error.code !== 'ODM_E_UNSUPPORTED'
  }
}

test('sync moves the watermark to the tail', async (t) => {
  const map = filled(mapPath(t))
  const before = map.stat()
  assert.ok(before.watermark < before.tail)
  const promise = map.sync()
  assert.ok(promise instanceof Promise)
  assert.equal(await promise, undefined)
  assert.equal(map.stat().watermark, before.tail)
})

test('the map stays usable meanwhile, and may be closed', async (t) => {
  const map = filled(mapPath(t))
  const syncs = [map.sync(), map.sync(), map.sync()]
  map.set(1n, 'new')
  assert.equal(map.get(1n), 'new')
  map.close()
  assert.deepEqual(await Promise.all(syncs), [undefined, undefined, undefined])
})

test('a sync that can not be is a rejection', async (t) => {
  const where = mapPath(t)
  filled(where, 1).close()
  const reader = DiskMap.open(where, { readOnly: true })
  await assert.rejects(reader.sync(), { name: 'DiskMapError', code: 'ODM_E_READ_ONLY', path: where })
})

test('sync in memory', async () => {
  assert.equal(await new StringStringMap([['a', 'b']]).sync(), undefined)
})

describe('options', () => {
  test('progress is told', async (t) => {
    const told = []
    await filled(mapPath(t)).sync({ onProgress: (progress) => told.push(progress) })
    assert.ok(told.length >= 1)
    assert.deepEqual(Object.keys(told[0]), ['done', 'total'])
  })

  test('what is aborted rejects with the signal\'s reason', async (t) => {
    const map = filled(mapPath(t))
    await assert.rejects(map.sync({ signal: AbortSignal.abort('enough') }), (reason) => reason === 'enough')
    await assert.rejects(map.sync({ signal: AbortSignal.abort() }), { name: 'AbortError' })
  })

  test('are checked', async (t) => {
    const map = filled(mapPath(t), 1)
    await assert.rejects(map.sync({ onprogress: () => {} }), { message: 'Unknown option "onprogress", did you mean "onProgress"?' })
    await assert.rejects(map.sync({ onProgress: 5 }), TypeError)
    await assert.rejects(map.sync({ signal: {} }), /signal must be an AbortSignal/)
    await assert.rejects(map.backup(5), /a path must be a string/)
  })
})

test('compact', async (t) => {
  if (!await has('compact')) return t.skip('not in this version of the engine')
  const map = filled(mapPath(t))
  for (let i = 0; i < 15000; i++) map.delete(BigInt(i))
  const before = map.stat()
  assert.ok(before.deadBytes > 0)
  let last
  await map.compact({ onProgress: (progress) => { last = progress } })
  assert.ok(map.stat().logBytes < before.logBytes)
  assert.equal(map.size, 5000)
  assert.equal(map.get(19999n), 'value 19999')
  assert.ok(last.done <= last.total || last.total === 0)
})

test('verify', async (t) => {
  if (!await has('verify')) return t.skip('not in this version of the engine')
  const report = await filled(mapPath(t)).verify()
  assert.ok(report.records >= 20000)
  assert.deepEqual([report.badRecords, report.badSlots], [0, 0])
})

test('backup, while others write', async (t) => {
  const where = mapPath(t)
  const map = filled(where)
  const target = mapPath(t, 'copy')
  if (!await has('backup', mapPath(t))) return t.skip('not in this version of the engine')
  const backup = map.backup(target)
  for (let i = 0; i < 1000; i++) map.set(BigInt(100000 + i), 'late')
  await backup
  const copy = U64StringMap.open(target, { mustExist: true })
  for (let i = 0; i < 20000; i += 97) assert.equal(copy.get(BigInt(i)), `value ${i}`)
})

test('backup leaves a map that is there', async (t) => {
  const map = filled(mapPath(t), 10)
  const target = mapPath(t, 'copy')
  await map.backup(target)
  for (const path of [target, map.path]) {
    // A signal, or work that never ends would not be seen to be that.
    const controller = new AbortController()
    await assert.rejects(map.backup(path, { onProgress: () => controller.abort(), signal: controller.signal }),
      (error) => error.code === 'ODM_EXISTS' && error.message.includes(`${path} is a map already`))
  }
})

test('backup cancelled leaves no map', async (t) => {
  const target = mapPath(t, 'copy')
  if (!await has('backup', mapPath(t))) return t.skip('not in this version of the engine')
  const map = filled(mapPath(t), 200000)
  const controller = new AbortController()
  const backup = map.backup(target, { signal: controller.signal, onProgress: () => controller.abort() })
  // A small map may be done at the first step.
  const outcome = await backup.then(() => 'done', (error) => error.name)
  if (outcome === 'AbortError') {
    assert.throws(() => DiskMap.open(target, { mustExist: true, key: str, value: str }), { code: /ODM_NOT_FOUND|ODM_E_CORRUPT/ })
  } else {
    assert.equal(outcome, 'done')
  }
})

test('nothing of a map stays after its work and its end', async (t) => {
  const where = mapPath(t)
  const map = filled(where, 1)
  const mapped = () => fs.readFileSync('/proc/self/maps', 'latin1').includes(where)
  for (let i = 0; i < 10; i++) await map.sync()
  await assert.rejects(map.backup('/proc/none/here'))
  assert.equal(mapped(), true)
  map.close()
  assert.equal(mapped(), false)
})
