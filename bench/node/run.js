'use strict'
// run.js - runs the stores in turn, each in a process and a directory of its own, and prints a table of the medians.
//
//   node run.js [--count 1000000] [--rounds 3] [--engines odm,lmdb,...] [--seed 1] [--dir /tmp] [--clock wall]
//               [--warm 2048]

const { execFileSync } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')
const { parseArgs } = require('node:util')

const { values: options } = parseArgs({
  options: {
    count: { type: 'string', default: '1000000' },
    rounds: { type: 'string', default: '3' },
    engines: { type: 'string', default: 'odm,lmdb,classic-level,better-sqlite3,Map' },
    seed: { type: 'string', default: '1' },
    dir: { type: 'string', default: os.tmpdir() },
    clock: { type: 'string', default: 'wall' },
    warm: { type: 'string', default: '2048' }
  }
})
const engines = options.engines.split(',')

// The promises, as factors of odm's time: [operation, of what, of which engine, at least].
const GOALS = [
  ['get', 'get', 'lmdb', 4],
  ['get', 'get', 'Map', 1],
  ['set', 'set', 'lmdb', 3],
  ['getMany, 64', 'get', 'odm', 1.5]
]

function median (numbers) {
  return numbers.slice().sort((a, b) => a - b)[numbers.length >> 1]
}

// Has the kernel own that much memory when the engine asks for it: writes and removes a file. A virtual machine gives memory that
// was free for a while back to its host, and a page that comes from there costs several microseconds, whoever touches it first.
function warm (directory, mebibytes) {
  const file = path.join(directory, 'warm')
  const fd = fs.openSync(file, 'w')
  const zeros = new Uint8Array(1 << 20)
  for (let i = 0; i < mebibytes; i++) fs.writeSync(fd, zeros)
  fs.closeSync(fd)
  fs.rmSync(file)
}

function runOnce (engine) {
  const directory = fs.mkdtempSync(path.join(options.dir, 'odm_bench.'))
  try {
    warm(directory, Number(options.warm))
    const output = execFileSync(process.execPath,
      ['--expose-gc', '--max-old-space-size=8192', path.join(__dirname, 'worker.js'), engine, directory, options.count,
        options.seed, options.clock], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
    return JSON.parse(output)
  } finally {
    fs.rmSync(directory, { recursive: true })
  }
}

const rounds = new Map(engines.map((engine) => [engine, []]))
for (let round = 0; round < Number(options.rounds); round++) {
  for (const engine of engines) {
    process.stderr.write(`round ${round + 1}: ${engine}\n`)
    const results = runOnce(engine)
    process.stderr.write(`${JSON.stringify(results)}\n`) // Not lost if a later one fails.
    rounds.get(engine).push(results)
  }
}

const figure = (engine, operation) => {
  const figures = rounds.get(engine)?.map((results) => results[operation]).filter((n) => n !== undefined) ?? []
  return figures.length > 0 ? median(figures) : undefined
}
const operations = Object.keys(rounds.get(engines[0])[0])
const cpu = os.cpus()[0].model.trim()
console.log(`${new Date().toISOString().slice(0, 10)}, Node.js ${process.version}, ${os.cpus().length} × ${cpu}, ` +
  `Linux ${os.release()}, ${options.count} entries, ${options.rounds} rounds, ns of ${options.clock === 'cpu' ? 'processor ' : ''}time per entry\n`)
console.log(`| | ${engines.join(' | ')} |\n|---|${engines.map(() => '---:').join('|')}|`)
for (const operation of operations) {
  console.log(`| ${operation} | ${engines.map((e) => figure(e, operation)?.toFixed(0) ?? '–').join(' | ')} |`)
}
console.log('')
for (const [operation, of, engine, least] of GOALS) {
  const theirs = figure(engine, of)
  const ours = figure('odm', operation)
  if (theirs === undefined || ours === undefined) continue
  const factor = theirs / ours
  console.log(`${operation}: ${factor.toFixed(2)} × as fast as ${of} of ${engine}, promised ${least}: ` +
    (factor >= least ? 'kept' : 'MISSED'))
}
