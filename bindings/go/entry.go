package opendiskmap

// An Entry is a key and what was found under it: a value, or nothing (the entry is vacant). It writes only if nobody has
// changed the key since it was read; no lock is held meanwhile. An Entry is used by one goroutine at a time.
type Entry[K, V any] struct {
	m       *Map[K, V]
	key     K
	value   V
	version uint64 // 0: vacant
}

// Entry reads an entry, to decide what to write.
func (m *Map[K, V]) Entry(key K) (*Entry[K, V], error) {
	e := &Entry[K, V]{m: m, key: key}
	return e, e.Reload()
}

// Reload reads the entry again: after a Put or Delete that was too late.
func (e *Entry[K, V]) Reload() (err error) {
	var value V
	e.version, err = e.m.look("entry", &e.key, &value)
	e.value = value
	return err
}

// Occupied tells whether there was a value.
func (e *Entry[K, V]) Occupied() bool { return e.version != 0 }

// Key is the entry's key.
func (e *Entry[K, V]) Key() K { return e.key }

// Value is the value as it was read; a zero value if the entry is vacant.
func (e *Entry[K, V]) Value() V { return e.value }

// Version changes with every put of the key, by anybody, and never comes back; 0 is a vacant entry's. It is for comparing.
func (e *Entry[K, V]) Version() uint64 { return e.version }

// Put sets the key's value if nobody has changed the key since the entry was read, and tells whether it did. Read the entry
// again before another Put.
func (e *Entry[K, V]) Put(value V) (written bool, err error) {
	return e.m.put("entry put", &e.key, &value, e.version)
}

// Delete removes the key if nobody has changed it since the entry was read, and tells whether it did. Of a vacant entry there
// is nothing to remove: false.
func (e *Entry[K, V]) Delete() (removed bool, err error) {
	if e.version == 0 {
		return false, nil
	}
	return e.m.remove("entry delete", &e.key, e.version)
}

// OrPut returns the key's value; if there is none, it puts value. Afterwards the entry is occupied.
func (e *Entry[K, V]) OrPut(value V) (V, error) {
	return e.OrPutFunc(func() (V, error) { return value, nil })
}

// OrPutFunc is OrPut with a value that is only made if it is needed.
func (e *Entry[K, V]) OrPutFunc(value func() (V, error)) (V, error) {
	for !e.Occupied() {
		v, err := value()
		if err != nil {
			return e.value, err
		}
		if _, err := e.Put(v); err != nil {
			return e.value, err
		}
		if err := e.Reload(); err != nil { // Its version, or the value of somebody who was faster.
			return e.value, err
		}
	}
	return e.value, nil
}

// AndModify replaces the key's value by what fn makes of it, again and again until nobody has changed it meanwhile. A vacant
// entry stays so.
func (e *Entry[K, V]) AndModify(fn func(value V) V) error {
	for e.Occupied() {
		written, err := e.Put(fn(e.value))
		if err != nil {
			return err
		}
		if err := e.Reload(); err != nil || written {
			return err
		}
	}
	return nil
}
