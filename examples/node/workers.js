#!/usr/bin/env node
'use strict'
// workers.js - four cluster workers answer requests from one map, and see at once what is written to it. Beside it: the
// memory that a copy of the data in each worker would take.
//
//     node workers.js [directory]
const cluster = require('node:cluster')
const fs = require('node:fs')
const http = require('node:http')
const { StringStringMap } = require('opendiskmap')

const [, , path = 'pages.map'] = process.argv
const WORKERS = 4
const COUNT = 200_000
const map = StringStringMap.open(path)

/** MB that this process has for itself: what belongs to the map's files is shared with all who have it open. */
function privateMegabytes () {
  global.gc?.()
  return /RssAnon:\s+(\d+)/.exec(fs.readFileSync('/proc/self/status', 'latin1'))[1] / 1024
}

async function ask (port, key) {
  const answer = await fetch(`http://127.0.0.1:${port}/${encodeURIComponent(key)}`)
  return { text: await answer.text(), worker: answer.headers.get('worker') }
}

function serve () {
  const server = http.createServer((request, response) => {
    const value = map.get(decodeURIComponent(request.url.slice(1)))
    response.writeHead(value === undefined ? 404 : 200, { worker: cluster.worker.id, connection: 'close' }).end(value)
  })
  server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }))
  process.on('message', () => {
    const before = privateMegabytes()
    let found = 0
    for (let i = 0; i < COUNT; i++) if (map.has(`page ${i}`)) found++ // Looks at every part of the map.
    const served = privateMegabytes()
    const copy = new Map(map)
    process.send({ found, map: served - before, copy: privateMegabytes() - served, size: copy.size })
  })
}

async function main () {
  const body = 'All work and no play makes Jack a dull boy. '.repeat(5)
  for (let i = 0; i < COUNT; i++) map.set(`page ${i}`, `${i}: ${body}`)
  const workers = Array.from({ length: WORKERS }, () => cluster.fork())
  const messages = () => Promise.all(workers.map((worker) => new Promise((resolve) => worker.once('message', resolve))))
  const [{ port }] = await messages()

  const answeredBy = new Set()
  for (let i = 0; i < 40; i++) {
    map.set('news', `edition ${i}`)
    const { text, worker } = await ask(port, 'news')
    if (text !== `edition ${i}`) throw new Error(`worker ${worker} answered ${text} instead of edition ${i}`)
    answeredBy.add(worker)
  }
  console.log(`${answeredBy.size} workers answered, each with what had just been written`)

  const replies = messages()
  for (const worker of workers) worker.send('report')
  const reports = await replies
  const megabytes = (what) => reports.reduce((sum, report) => sum + report[what], 0).toFixed(0)
  console.log(`each found all ${COUNT} entries: ${reports.every(({ found, size }) => found === COUNT && size > COUNT)}`)
  console.log(`one map for ${WORKERS} workers: ${megabytes('map')} MB of memory of their own`)
  console.log(`a copy in each of them: ${megabytes('copy')} MB`)
  for (const worker of workers) worker.kill()
}

if (cluster.isPrimary) main()
else serve()
