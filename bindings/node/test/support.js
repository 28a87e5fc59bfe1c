'use strict'
// support.js - directories for maps, other processes, and statuses that decide whether a test can run here.

const { spawn } = require('node:child_process')
const fs = require('node:fs')
const os = require('node:os')
const path = require('node:path')

// A map is not made on the writable layer of a container unless one insists. /dev/shm is none.
const OVERLAY = 0x794c7630
const parent = fs.statfsSync(os.tmpdir()).type === OVERLAY ? '/dev/shm' : os.tmpdir()

/** A path in a directory of the test's own, which is removed after it. */
function mapPath (t, name = 'map') {
  const directory = fs.mkdtempSync(path.join(parent, 'odm_node.'))
  t.after(() => fs.rmSync(directory, { recursive: true }))
  return path.join(directory, name)
}

/** Runs `node script args` to its end: {code, signal, stdout, stderr}. */
function runNode (args, { cwd, env } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd, env: { ...process.env, ...env } })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (text) => { stdout += text })
    child.stderr.on('data', (text) => { stderr += text })
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }))
  })
}

/** Runs a script that may `require('opendiskmap')`, as the package's own tests do. */
function runScript (script, ...args) {
  return runNode(['--expose-gc', '-e', script, ...args], { cwd: __dirname })
}

module.exports = { mapPath, runNode, runScript, parent }
