package main

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/PowerDNS/lmdb-go/lmdb"
	"github.com/cockroachdb/pebble/v2"
	"github.com/dgraph-io/badger/v4"
	bolt "go.etcd.io/bbolt"
	"opendiskmap.example/opendiskmap"
)

// An engine is a store, used as its own documentation says is fastest without syncing. Everything survives the death of the
// process. An absent key adds nothing to a sum.
type engine interface {
	open(dir string)
	load(keys, values []string)
	gets(keys []string) sum   // values where they lie, if the store has that; in one transaction, if it has them
	copies(keys []string) sum // values as strings
	iterate() sum             // keys and values where they lie
	close()
}

// An ourEngine can do more.
type ourEngine interface {
	engine
	views(keys []string) sum        // values where they lie, each by a call of its own
	loadMany(keys, values []string) // 64 keys a call
	many(keys []string) sum         // copies, 64 keys a call
}

var engines = map[string]func() engine{
	"odm":    func() engine { return &odmEngine{} },
	"lmdb":   func() engine { return &lmdbEngine{} },
	"bbolt":  func() engine { return &boltEngine{} },
	"badger": func() engine { return &badgerEngine{} },
	"pebble": func() engine { return &pebbleEngine{} },
	"map":    func() engine { return &mapEngine{} },
	"map+c":  func() engine { return &crossingEngine{} },
}

// writesPerTransaction: where a store has transactions, it is loaded in big ones.
const writesPerTransaction = 10_000

// chunks calls do with pieces of the entries.
func chunks(keys, values []string, do func(keys, values []string)) {
	for len(keys) > 0 {
		n := min(len(keys), writesPerTransaction)
		do(keys[:n], values[:n])
		keys, values = keys[n:], values[n:]
	}
}

// keep has a copy made in memory of its own, as a program that keeps it needs.
func keep(value string) string {
	kept = value
	return value
}

var kept string

// ---- opendiskmap --------------------------------------------------------------------------------------------------

type odmEngine struct{ m *opendiskmap.StringStringMap }

func (e *odmEngine) open(dir string) {
	var err error
	e.m, err = opendiskmap.OpenStringString(filepath.Join(dir, "map"), nil)
	check(err)
}

func (e *odmEngine) load(keys, values []string) {
	for i := range keys {
		check(e.m.Put(keys[i], values[i]))
	}
}

func (e *odmEngine) gets(keys []string) (s sum) {
	check(e.m.Read(func(r *opendiskmap.Reader[string, string]) error {
		for _, key := range keys {
			value, ok, err := r.Slice(key)
			if err != nil {
				return err
			}
			if ok {
				s += touch(value)
			}
		}
		return nil
	}))
	return s
}

func (e *odmEngine) views(keys []string) (s sum) {
	add := func(value []byte) error { s += touch(value); return nil }
	for _, key := range keys {
		_, err := e.m.View(key, add)
		check(err)
	}
	return s
}

func (e *odmEngine) copies(keys []string) (s sum) {
	for _, key := range keys {
		value, ok, err := e.m.Get(key)
		check(err)
		if ok {
			s += touch(keep(value))
		}
	}
	return s
}

func (e *odmEngine) loadMany(keys, values []string) {
	batch := e.m.Batch()
	for i := range keys {
		batch.Put(keys[i], values[i])
		if batch.Len() == 64 || i == len(keys)-1 {
			check(batch.Write())
			batch.Reset()
		}
	}
}

func (e *odmEngine) many(keys []string) (s sum) {
	var values [64]string
	var ok [64]bool
	for len(keys) > 0 {
		n := min(len(keys), 64)
		check(e.m.GetMany(keys[:n], values[:n], ok[:n]))
		for i := range n {
			if ok[i] {
				s += touch(values[i])
			}
		}
		keys = keys[n:]
	}
	return s
}

func (e *odmEngine) iterate() (s sum) {
	walk := e.m.Walk(opendiskmap.Start)
	for _, value := range walk.Slices() {
		s += touch(value)
	}
	check(walk.Err())
	return s
}

func (e *odmEngine) close() { check(e.m.Close()) }

// ---- LMDB through cgo ---------------------------------------------------------------------------------------------

type lmdbEngine struct {
	env *lmdb.Env
	dbi lmdb.DBI
}

func (e *lmdbEngine) open(dir string) {
	var err error
	e.env, err = lmdb.NewEnv()
	check(err)
	check(e.env.SetMapSize(64 << 30))
	check(e.env.Open(dir, lmdb.NoSync|lmdb.WriteMap|lmdb.NoReadahead, 0o644))
	check(e.env.Update(func(txn *lmdb.Txn) (err error) { e.dbi, err = txn.OpenRoot(0); return err }))
}

func (e *lmdbEngine) load(keys, values []string) {
	chunks(keys, values, func(keys, values []string) {
		check(e.env.Update(func(txn *lmdb.Txn) error {
			for i := range keys {
				if err := txn.Put(e.dbi, []byte(keys[i]), []byte(values[i]), 0); err != nil {
					return err
				}
			}
			return nil
		}))
	})
}

func (e *lmdbEngine) each(keys []string, add func([]byte)) {
	check(e.env.View(func(txn *lmdb.Txn) error {
		txn.RawRead = true
		var room [keySizeMax]byte
		for _, key := range keys {
			value, err := txn.Get(e.dbi, room[:copy(room[:], key)])
			if lmdb.IsNotFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			add(value)
		}
		return nil
	}))
}

func (e *lmdbEngine) gets(keys []string) (s sum) {
	e.each(keys, func(value []byte) { s += touch(value) })
	return s
}

func (e *lmdbEngine) copies(keys []string) (s sum) {
	e.each(keys, func(value []byte) { s += touch(keep(string(value))) })
	return s
}

func (e *lmdbEngine) iterate() (s sum) {
	check(e.env.View(func(txn *lmdb.Txn) error {
		txn.RawRead = true
		cursor, err := txn.OpenCursor(e.dbi)
		check(err)
		defer cursor.Close()
		for {
			_, value, err := cursor.Get(nil, nil, lmdb.Next)
			if lmdb.IsNotFound(err) {
				return nil
			}
			if err != nil {
				return err
			}
			s += touch(value)
		}
	}))
	return s
}

func (e *lmdbEngine) close() { check(e.env.Close()) }

// ---- bbolt --------------------------------------------------------------------------------------------------------

type boltEngine struct {
	db *bolt.DB
}

var bucket = []byte("b")

func (e *boltEngine) open(dir string) {
	var err error
	e.db, err = bolt.Open(filepath.Join(dir, "db"), 0o644, &bolt.Options{NoSync: true, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	check(err)
	check(e.db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket(bucket); return err }))
}

func (e *boltEngine) load(keys, values []string) {
	chunks(keys, values, func(keys, values []string) {
		check(e.db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket(bucket)
			for i := range keys {
				if err := b.Put([]byte(keys[i]), []byte(values[i])); err != nil {
					return err
				}
			}
			return nil
		}))
	})
}

func (e *boltEngine) each(keys []string, add func([]byte)) {
	check(e.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(bucket)
		var room [keySizeMax]byte
		for _, key := range keys {
			if value := b.Get(room[:copy(room[:], key)]); value != nil {
				add(value)
			}
		}
		return nil
	}))
}

func (e *boltEngine) gets(keys []string) (s sum) {
	e.each(keys, func(value []byte) { s += touch(value) })
	return s
}

func (e *boltEngine) copies(keys []string) (s sum) {
	e.each(keys, func(value []byte) { s += touch(keep(string(value))) })
	return s
}

func (e *boltEngine) iterate() (s sum) {
	check(e.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(_, value []byte) error { s += touch(value); return nil })
	}))
	return s
}

func (e *boltEngine) close() { check(e.db.Close()) }

// ---- badger -------------------------------------------------------------------------------------------------------

type badgerEngine struct {
	db *badger.DB
}

func (e *badgerEngine) open(dir string) {
	var err error
	e.db, err = badger.Open(badger.DefaultOptions(dir).WithSyncWrites(false).WithLogger(nil))
	check(err)
}

func (e *badgerEngine) load(keys, values []string) {
	batch := e.db.NewWriteBatch()
	for i := range keys {
		check(batch.Set([]byte(keys[i]), []byte(values[i])))
	}
	check(batch.Flush())
}

func (e *badgerEngine) gets(keys []string) (s sum) {
	add := func(value []byte) error { s += touch(value); return nil }
	check(e.db.View(func(txn *badger.Txn) error {
		for _, key := range keys {
			item, err := txn.Get([]byte(key)) // Keeps the key.
			if err == badger.ErrKeyNotFound {
				continue
			}
			if err == nil {
				err = item.Value(add)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
	return s
}

func (e *badgerEngine) copies(keys []string) (s sum) {
	check(e.db.View(func(txn *badger.Txn) error {
		for _, key := range keys {
			item, err := txn.Get([]byte(key))
			if err == badger.ErrKeyNotFound {
				continue
			}
			check(err)
			check(item.Value(func(value []byte) error { s += touch(keep(string(value))); return nil }))
		}
		return nil
	}))
	return s
}

func (e *badgerEngine) iterate() (s sum) {
	add := func(value []byte) error { s += touch(value); return nil }
	check(e.db.View(func(txn *badger.Txn) error {
		it := txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := it.Item().Value(add); err != nil {
				return err
			}
		}
		return nil
	}))
	return s
}

func (e *badgerEngine) close() { check(e.db.Close()) }

// ---- pebble -------------------------------------------------------------------------------------------------------

type pebbleEngine struct {
	db    *pebble.DB
	cache *pebble.Cache
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) { os.Exit(1) }

func (e *pebbleEngine) open(dir string) {
	var err error
	e.cache = pebble.NewCache(1 << 30) // Everything fits.
	e.db, err = pebble.Open(dir, &pebble.Options{Cache: e.cache, MemTableSize: 64 << 20, Logger: quiet{}})
	check(err)
}

func (e *pebbleEngine) load(keys, values []string) {
	chunks(keys, values, func(keys, values []string) {
		batch := e.db.NewBatch()
		for i := range keys {
			check(batch.Set([]byte(keys[i]), []byte(values[i]), nil))
		}
		check(batch.Commit(pebble.NoSync))
	})
}

func (e *pebbleEngine) each(keys []string, add func([]byte)) {
	var room [keySizeMax]byte
	for _, key := range keys {
		value, closer, err := e.db.Get(room[:copy(room[:], key)])
		if err == pebble.ErrNotFound {
			continue
		}
		check(err)
		add(value)
		check(closer.Close())
	}
}

func (e *pebbleEngine) gets(keys []string) (s sum) {
	e.each(keys, func(value []byte) { s += touch(value) })
	return s
}

func (e *pebbleEngine) copies(keys []string) (s sum) {
	e.each(keys, func(value []byte) { s += touch(keep(string(value))) })
	return s
}

func (e *pebbleEngine) iterate() (s sum) {
	it, err := e.db.NewIter(nil)
	check(err)
	for ok := it.First(); ok; ok = it.Next() {
		s += touch(it.Value())
	}
	check(it.Close())
	return s
}

func (e *pebbleEngine) close() {
	check(e.db.Close())
	e.cache.Unref()
}

// ---- a built-in map -----------------------------------------------------------------------------------------------

type mapEngine struct {
	m map[string]string
}

func (e *mapEngine) open(string) { e.m = map[string]string{} }

// The map owns its strings, each allocated by itself, as a program's would be.
func (e *mapEngine) load(keys, values []string) {
	for i := range keys {
		e.m[strings.Clone(keys[i])] = strings.Clone(values[i])
	}
}

func (e *mapEngine) gets(keys []string) (s sum) {
	for _, key := range keys {
		if value, ok := e.m[key]; ok {
			s += touch(value)
		}
	}
	return s
}

func (e *mapEngine) copies(keys []string) (s sum) {
	for _, key := range keys {
		if value, ok := e.m[key]; ok {
			s += touch(keep(strings.Clone(value)))
		}
	}
	return s
}

func (e *mapEngine) iterate() (s sum) {
	for _, value := range e.m {
		s += touch(value)
	}
	return s
}

func (e *mapEngine) close() {}
