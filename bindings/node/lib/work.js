'use strict'
// work.js - long work: sync, compact, verify, backup. In steps, in threads of Node's pool, on a handle of its own, so that
// neither the event loop nor the map waits for it.

const { native: addon } = require('./native')
const { statusError, typeError, shown } = require('./errors')
const { checkNames } = require('./options')
const { OK, DONE } = require('./handle')

const KINDS = { sync: 0, compact: 1, verify: 2, backup: 3 }
const STEP_MS = 50 // so often progress is told and a signal looked at

/** Runs the work to its end; gives what the engine reports. */
async function run (handle, operation, path, options = {}) {
  checkNames(options, ['onProgress', 'signal'])
  const { onProgress, signal } = options
  if (onProgress !== undefined && typeof onProgress !== 'function') {
    throw typeError(`onProgress must be a function, not ${shown(onProgress)}`)
  }
  if (signal !== undefined && typeof signal?.aborted !== 'boolean') {
    throw typeError(`signal must be an AbortSignal, not ${shown(signal)}`)
  }
  if (signal?.aborted) throw signal.reason
  const job = handle.native.job(KINDS[operation], path)
  if (typeof job === 'number') handle.fail(operation, job)
  if (Array.isArray(job)) throw statusError(operation, handle.path, job[0], job)
  try {
    for (;;) {
      const status = await addon.jobStep(job, STEP_MS)
      const { done, total, report, error } = addon.jobState(job)
      if (status !== OK && status !== DONE) throw statusError(operation, handle.path, status, error)
      if (onProgress !== undefined) onProgress({ done, total })
      if (status === DONE) return report
      if (signal?.aborted) throw signal.reason
    }
  } finally {
    addon.jobEnd(job)
  }
}

module.exports = { run }
