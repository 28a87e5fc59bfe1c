'use strict'
// Worker threads, cluster, child processes, two copies of the package, ends of processes and of maps.

const { test, describe } = require('node:test')
const assert = require('node:assert/strict')
const fs = require('node:fs')
const path = require('node:path')
const { Worker } = require('node:worker_threads')
const { DiskMap, str, u53, bytes } = require('opendiskmap')
const { mapPath, runNode, runScript } = require('./support')

const types = { key: str, value: u53 }
const ROUNDS = 2000

// Counts to ROUNDS on the map whose path it is given; works as a thread, a forked child and a cluster worker.
const COUNTER = `
  const { DiskMap, str, u53 } = require('opendiskmap')
  module.exports = (path) => {
    const map = DiskMap.open(path, { key: str, value: u53 })
    for (let i = 0; i < ${ROUNDS}; i++) map.increment('count')
    map.increment('done')
    map.close()
  }
`

/** A script beside the package's tests, so that it finds the package by its name. */
function scriptFile (t, text) {
  const file = path.join(__dirname, `script-${process.pid}-${Math.random().toString(36).slice(2)}.js`)
  fs.writeFileSync(file, text)
  t.after(() => fs.rmSync(file))
  return file
}

test('worker threads and their parent share a map, and lose no count', async (t) => {
  const where = mapPath(t)
  const file = scriptFile(t, `${COUNTER}; module.exports(require('node:worker_threads').workerData)`)
  const map = DiskMap.open(where, types)
  const ends = Array.from({ length: 4 }, () => new Promise((resolve, reject) => {
    new Worker(file, { workerData: where }).on('error', reject).on('exit', resolve)
  }))
  for (let i = 0; i < ROUNDS; i++) map.increment('count')
  assert.deepEqual(await Promise.all(ends), [0, 0, 0, 0])
  assert.equal(map.get('count'), 5 * ROUNDS)
})

test('child_process.fork: four processes count into one map', async (t) => {
  const where = mapPath(t)
  const file = scriptFile(t, `${COUNTER}; module.exports(process.argv[2])`)
  const map = DiskMap.open(where, types)
  const { fork } = require('node:child_process')
  const codes = await Promise.all(Array.from({ length: 4 }, () => new Promise((resolve) => {
    fork(file, [where]).on('exit', resolve)
  })))
  assert.deepEqual(codes, [0, 0, 0, 0])
  assert.equal(map.get('count'), 4 * ROUNDS)
})

test('cluster: workers see what the others write, at once', async (t) => {
  const where = mapPath(t)
  const file = scriptFile(t, `${COUNTER}
    const cluster = require('node:cluster')
    if (cluster.isPrimary) {
      for (let i = 0; i < 3; i++) cluster.fork()
    } else {
      module.exports(process.argv[2])
      process.exit(0)
    }
  `)
  const { code, stderr } = await runNode([file, where])
  assert.equal(code, 0, stderr)
  const map = DiskMap.open(where, types)
  assert.deepEqual([map.get('count'), map.get('done')], [3 * ROUNDS, 3])
})

test('a put is seen by another process before the next line', async (t) => {
  const where = mapPath(t)
  const map = DiskMap.open(where, types)
  const file = scriptFile(t, `
    const map = require('opendiskmap').DiskMap.open(process.argv[2])
    process.on('message', (key) => process.send(Number(map.get(key))))
  `)
  const child = require('node:child_process').fork(file, [where])
  t.after(() => child.kill())
  for (let i = 0; i < 50; i++) {
    map.set(`key ${i}`, i)
    child.send(`key ${i}`)
    assert.equal(await new Promise((resolve) => child.once('message', resolve)), i)
  }
})

test('two copies of the package work side by side in one process, on one map', (t) => {
  const copy = path.join(path.dirname(mapPath(t)), 'opendiskmap')
  fs.cpSync(path.join(__dirname, '..'), copy, { recursive: true, filter: (from) => !from.includes(`${path.sep}test`) })
  const second = require(copy)
  assert.notEqual(second.DiskMap, DiskMap)
  const where = mapPath(t)
  const one = DiskMap.open(where, types)
  const two = second.DiskMap.open(where, { key: second.str, value: second.u53 })
  for (let i = 0; i < 500; i++) {
    one.increment('count')
    two.increment('count')
  }
  assert.equal(one.get('count'), 1000)
  assert.equal(two.get('count'), 1000)
  one.close()
  assert.equal(two.increment('count'), 1001)
  two.close()
})

describe('ends', () => {
  const open = 'const { DiskMap, str, u53 } = require("opendiskmap"); const map = DiskMap.open(process.argv[1], { key: str, value: u53 }); map.set("a", 1);'
  const endings = {
    'by running out of work': [`${open}`, 0, null],
    'by process.exit': [`${open} process.exit(3)`, 3, null],
    'by process.exit inside a walk': [`${open} for (const key of map.keys()) process.exit(4)`, 4, null],
    'by an error': [`${open} throw new Error("mine")`, 1, null],
    'by an error inside a walk': [`${open} for (const key of map.keys()) throw new Error("mine")`, 1, null],
    'by a signal': [`${open} process.kill(process.pid, "SIGKILL")`, null, 'SIGKILL'],
    'by process.exit while a sync runs': [`${open} map.sync(); process.exit(5)`, 5, null],
    'with a sync begun, which is finished first': [`${open} map.sync().then(() => { process.exitCode = 6 })`, 6, null]
  }
  for (const [how, [script, code, signal]] of Object.entries(endings)) {
    test(`a process with an open map may end ${how}`, async (t) => {
      const where = mapPath(t)
      const ended = await runScript(script, where)
      assert.deepEqual([ended.code, ended.signal], [code, signal], ended.stderr)
      assert.equal(DiskMap.open(where, types).get('a'), 1)
    })
  }

  test('a worker thread may be terminated while it writes', async (t) => {
    const where = mapPath(t)
    const map = DiskMap.open(where, types)
    for (let i = 0; i < 5; i++) {
      const worker = new Worker(scriptFile(t, `
        const { parentPort, workerData } = require('node:worker_threads')
        const { DiskMap } = require('opendiskmap')
        const map = DiskMap.open(workerData)
        parentPort.postMessage('open')
        for (;;) map.increment('count')
      `), { workerData: where })
      await new Promise((resolve) => worker.once('message', resolve))
      await worker.terminate()
      assert.ok(map.increment('count') > i)
    }
  })

  test('a worker thread may end with open maps, walks and syncs', async (t) => {
    const where = mapPath(t)
    DiskMap.open(where, types).set('a', 1).set('b', 2)
    for (let i = 0; i < 5; i++) {
      const worker = new Worker(scriptFile(t, `
        const map = require('opendiskmap').DiskMap.open(require('node:worker_threads').workerData)
        globalThis.kept = [map, map.keys(), map.sync()]
        kept[1].next()
      `), { workerData: where })
      assert.equal(await new Promise((resolve) => worker.once('exit', resolve)), 0)
    }
  })
})

describe('garbage', () => {
  test('maps and walks that nobody keeps are closed', async (t) => {
    const where = mapPath(t)
    const { code, stdout, stderr } = await runScript(`
      const fs = require('node:fs')
      const { DiskMap, str, u53 } = require('opendiskmap')
      const open = () => DiskMap.open(process.argv[1], { key: str, value: u53 })
      const mapped = () => fs.readFileSync('/proc/self/maps', 'latin1').split('\\n').filter((line) => line.includes(process.argv[1])).length
      open().set('a', 1).set('b', 2)
      function openAndForget () {
        const map = open()
        map.keys().next()
        for (const key of map.keys()) break
      }
      async function main () {
        for (let i = 0; i < 300; i++) openAndForget()
        for (let i = 0; i < 20 && mapped() > 0; i++) {
          gc()
          await new Promise((resolve) => setTimeout(resolve, 20))
        }
        console.log(mapped(), open().get('a'))
      }
      main()
    `, where)
    assert.equal(code, 0, stderr)
    assert.equal(stdout, '0 1\n')
  })

  test('a map stays as long as its walk', async (t) => {
    const { code, stdout, stderr } = await runScript(`
      const { DiskMap, str, u53 } = require('opendiskmap')
      const walkOf = () => DiskMap.open(process.argv[1], { key: str, value: u53 })
        .setMany(Array.from({ length: 5000 }, (_, i) => [String(i), i])).values()
      const walk = walkOf()
      let sum = 0
      for (const value of walk) { if (value % 500 === 0) gc(); sum += value }
      console.log(sum)
    `, mapPath(t))
    assert.equal(code, 0, stderr)
    assert.equal(stdout, '12497500\n')
  })

  test('reading and writing for long does not make the process grow', async (t) => {
    const { code, stdout, stderr } = await runScript(`
      const { DiskMap, str, bytes } = require('opendiskmap')
      const map = new DiskMap([['k', new Uint8Array(100000)]], { key: str, value: bytes })
      const anonymous = () => Number(/RssAnon:\\s+(\\d+)/.exec(require('node:fs').readFileSync('/proc/self/status', 'latin1'))[1])
      async function round () {
        for (let i = 0; i < 2000; i++) {
          map.get('k'); map.view('k', (lent) => lent[0]); map.getMany(['k']); for (const key of map.keys()) break
          if (i % 100 === 0) { gc(); await new Promise(setImmediate) }
        }
        gc()
      }
      async function main () {
        await round()
        const before = anonymous()
        await round()
        await round()
        console.log(anonymous() - before < 40000 ? 'steady' : anonymous() - before)
      }
      main()
    `)
    assert.equal(code, 0, stderr)
    assert.equal(stdout, 'steady\n')
  })
})

test('a map can not be sent to another thread: its path can', () => {
  assert.throws(() => structuredClone(new DiskMap(null, { key: str, value: bytes }).get), { name: 'DataCloneError' })
})
