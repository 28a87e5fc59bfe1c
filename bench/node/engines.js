'use strict'
// engines.js - what is asked of a store, and the stores, each with the settings that are its fastest for it.
//
// load(keys, values) and update(keys, values) put strings; get(keys) and getMany(keys, batch) give the sum of the values'
// lengths, 0 for an absent one. None syncs; all but Map survive the death of the process. Transactions are of 10,000.

const TRANSACTION = 10_000
const path = require('node:path')

function batches (keys, size, use) {
  for (let i = 0; i < keys.length; i += size) use(i, Math.min(keys.length, i + size))
}

const engines = {
  odm (directory) {
    const { DiskMap, str } = require('opendiskmap')
    const map = DiskMap.open(path.join(directory, 'map'), { key: str, value: str })
    const put = (keys, values) => {
      for (let i = 0; i < keys.length; i++) map.set(keys[i], values[i])
    }
    return {
      load: put,
      update: put,
      get (keys) {
        let sum = 0
        for (let i = 0; i < keys.length; i++) {
          const value = map.get(keys[i])
          if (value !== undefined) sum += value.length
        }
        return sum
      },
      getMany (keys, size) {
        let sum = 0
        batches(keys, size, (from, to) => {
          for (const value of map.getMany(keys.slice(from, to))) if (value !== undefined) sum += value.length
        })
        return sum
      },
      walk () {
        let sum = 0
        for (const [, value] of map) sum += value.length
        return sum
      },
      setMany (keys, values, size) {
        batches(keys, size, (from, to) => {
          const entries = []
          for (let i = from; i < to; i++) entries.push([keys[i], values[i]])
          map.setMany(entries)
        })
      },
      close: () => map.close()
    }
  },

  lmdb (directory) {
    const { open } = require('lmdb')
    const db = open({
      path: path.join(directory, 'lmdb'),
      encoding: 'string',
      useWritemap: true,
      noSync: true,
      mapSize: 2 ** 33
    })
    const put = (keys, values) => batches(keys, TRANSACTION, (from, to) => {
      db.transactionSync(() => {
        for (let i = from; i < to; i++) db.put(keys[i], values[i])
      })
    })
    return {
      load: put,
      update: put,
      get (keys) {
        let sum = 0
        for (let i = 0; i < keys.length; i++) {
          const value = db.get(keys[i])
          if (value !== undefined) sum += value.length
        }
        return sum
      },
      walk () {
        let sum = 0
        for (const { value } of db.getRange()) sum += value.length
        return sum
      },
      close: () => db.close()
    }
  },

  'classic-level' (directory) {
    const { ClassicLevel } = require('classic-level')
    const db = new ClassicLevel(path.join(directory, 'level'), { keyEncoding: 'utf8', valueEncoding: 'utf8' })
    const put = async (keys, values) => {
      for (let from = 0; from < keys.length; from += TRANSACTION) {
        const operations = []
        for (let i = from; i < Math.min(keys.length, from + TRANSACTION); i++) {
          operations.push({ type: 'put', key: keys[i], value: values[i] })
        }
        await db.batch(operations)
      }
    }
    return {
      open: () => db.open(),
      load: put,
      update: put,
      get (keys) {
        let sum = 0
        for (let i = 0; i < keys.length; i++) {
          const value = db.getSync(keys[i])
          if (value !== undefined) sum += value.length
        }
        return sum
      },
      async getMany (keys, size) {
        let sum = 0
        for (let i = 0; i < keys.length; i += size) {
          for (const value of await db.getMany(keys.slice(i, i + size))) if (value !== undefined) sum += value.length
        }
        return sum
      },
      async walk () {
        let sum = 0
        for await (const [, value] of db.iterator()) sum += value.length
        return sum
      },
      close: () => db.close()
    }
  },

  'better-sqlite3' (directory) {
    const Database = require('better-sqlite3')
    const db = new Database(path.join(directory, 'sqlite.db'))
    db.pragma('journal_mode = WAL')
    db.pragma('synchronous = OFF')
    db.pragma('mmap_size = 4294967296')
    db.exec('CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID')
    const set = db.prepare('INSERT OR REPLACE INTO entries VALUES (?, ?)')
    const get = db.prepare('SELECT value FROM entries WHERE key = ?').pluck()
    const all = db.prepare('SELECT value FROM entries').pluck()
    const put = (keys, values) => batches(keys, TRANSACTION, db.transaction((from, to) => {
      for (let i = from; i < to; i++) set.run(keys[i], values[i])
    }))
    return {
      load: put,
      update: put,
      get (keys) {
        let sum = 0
        for (let i = 0; i < keys.length; i++) {
          const value = get.get(keys[i])
          if (value !== undefined) sum += value.length
        }
        return sum
      },
      walk () {
        let sum = 0
        for (const value of all.iterate()) sum += value.length
        return sum
      },
      close: () => db.close()
    }
  },

  Map () {
    const map = new Map()
    const put = (keys, values) => {
      for (let i = 0; i < keys.length; i++) map.set(keys[i], values[i])
    }
    return {
      load: put,
      update: put,
      get (keys) {
        let sum = 0
        for (let i = 0; i < keys.length; i++) {
          const value = map.get(keys[i])
          if (value !== undefined) sum += value.length
        }
        return sum
      },
      walk () {
        let sum = 0
        for (const [, value] of map) sum += value.length
        return sum
      },
      close () {}
    }
  }
}

module.exports = { engines }
