package opendiskmap

import (
	"bytes"
	"runtime"
	"unsafe"
)

// A Map is a hash map in a directory, or in memory. Any number of goroutines use it at once, and so may other processes.
//
// Methods copy: what they return is the caller's. View, Reader.Slice and Walk.Slices are the exceptions, and say so.
type Map[K, V any] struct {
	store   *store
	lanes   *lanes // nil: look-ups need handles
	keys    coder[K]
	values  coder[V]
	cleanup runtime.Cleanup
}

// Open opens the map in the directory path, and makes it if there is none. opts nil: the defaults.
//
// The codecs are part of the map: opening it with others is ErrMismatch, and the message shows both.
//
// Opening takes no time that grows with the map, unless its index has to be rebuilt from the log: after power loss, or when
// the files are a copy. Any number of processes may open, and make, one map at once.
func Open[K, V any](path string, key Codec[K], value Codec[V], opts *Options) (*Map[K, V], error) {
	return open(&path, key, value, opts)
}

// OpenMemory makes a map in memory, that this process alone can see and that ends when it is closed.
func OpenMemory[K, V any](key Codec[K], value Codec[V], opts *Options) (*Map[K, V], error) {
	return open(nil, key, value, opts)
}

func open[K, V any](path *string, key Codec[K], value Codec[V], opts *Options) (*Map[K, V], error) {
	if opts == nil {
		opts = &Options{}
	}
	name := ""
	if path != nil {
		name = *path
	}
	invalid := func(err error) error { return &Error{Op: "open", Path: name, Code: ErrInvalid, Err: err} }
	if err := opts.check(name); err != nil {
		return nil, invalid(err)
	}
	keys, err := newCoder(keyCodec(key))
	if err != nil {
		return nil, invalid(err)
	}
	values, err := newCoder(value)
	if err != nil {
		return nil, invalid(err)
	}
	schema := key.Name() + "/" + value.Name()
	if opts.AnySchema {
		schema = ""
	}
	root, err := nativeOpen(path, opts, opts.flags(), opts.waitMs(), schema)
	if err != nil {
		return nil, err
	}
	m := &Map[K, V]{store: newStore(name, root), keys: keys, values: values}
	m.store.openLanes(opts)
	if keys.form != encoded {
		m.lanes = m.store.lanes
	}
	// For maps that are forgotten; calls on their way keep their handles all the same.
	m.cleanup = runtime.AddCleanup(m, func(s *store) { s.close() }, m.store)
	return m, nil
}

// Close ends the use of the map. Calls on their way in other goroutines go on to their end, and so do loops over the map;
// later ones are ErrClosed. Closing is no sync: what was put is there for other processes, and survives the death of this
// one, but not yet power loss. Closing again does nothing.
func (m *Map[K, V]) Close() error {
	m.cleanup.Stop()
	return m.store.close()
}

// Path is the map's directory; empty for a map in memory.
func (m *Map[K, V]) Path() string { return m.store.path }

// ---- one key ------------------------------------------------------------------------------------------------------

// Get returns the value stored under key, and whether there is one. An absent key is no error.
//
// Get waits for nobody, whatever other goroutines and processes are writing.
func (m *Map[K, V]) Get(key K) (value V, ok bool, err error) {
	l := m.lookUp(&key)
	if l == nil {
		return m.getByHandle(&key)
	}
	defer m.store.giveLane(l)
	if Code(l.status) != OK {
		return value, false, m.store.notFoundBy("get", l)
	}
	if err := m.values.decode(foundBy(l), &value); err != nil {
		return value, false, m.store.refused("get", err)
	}
	return value, true, nil
}

// View calls fn with the bytes of key's value as they lie in the map, 8-byte aligned, without a copy. ok is false, and fn is
// not called, if key is absent. View returns what fn returns.
//
// The bytes must not be written to: that ends the program. They are valid, and do not change, until fn returns, whoever
// overwrites or removes the key meanwhile; fn itself may do so, too.
func (m *Map[K, V]) View(key K, fn func(value []byte) error) (bool, error) {
	l := m.lookUp(&key)
	if l == nil {
		return m.readByHandle("view", &key, fn)
	}
	defer m.store.giveLane(l)
	if Code(l.status) != OK {
		return false, m.store.notFoundBy("view", l)
	}
	return true, fn(foundBy(l))
}

// Has tells whether key is in the map.
func (m *Map[K, V]) Has(key K) (bool, error) {
	l := m.lookUp(&key)
	if l == nil {
		return m.readByHandle("has", &key, func([]byte) error { return nil })
	}
	defer m.store.giveLane(l)
	if Code(l.status) != OK {
		return false, m.store.notFoundBy("has", l)
	}
	return true, nil
}

func (m *Map[K, V]) getByHandle(key *K) (value V, ok bool, err error) {
	ok, err = m.readByHandle("get", key, func(found []byte) error {
		if err := m.values.decode(found, &value); err != nil {
			return m.store.refused("get", err)
		}
		return nil
	})
	return value, ok && err == nil, err
}

// lookUp looks key up by a lane that giveLane must give back; nil: it needs a handle, for the call or for the key's encoding.
func (m *Map[K, V]) lookUp(key *K) *lane {
	if m.lanes == nil {
		return nil
	}
	k := m.keys.asIs(key)
	if l := lookUpDirectly(m.lanes, k); l != nil {
		return l
	}
	return m.store.lookUpThroughCgo(k)
}

// readByHandle looks key up by a handle, and returns what fn returns for its value.
func (m *Map[K, V]) readByHandle(op string, key *K, fn func(found []byte) error) (ok bool, err error) {
	h, err := m.store.take()
	if err != nil {
		return false, m.store.refused(op, err)
	}
	defer m.store.give(h)
	k, err := m.keys.encode(key, &h.key)
	if err != nil {
		return false, m.store.refused(op, err)
	}
	found, code := h.get(k)
	switch code {
	case OK:
		return true, fn(found)
	case ErrNotFound:
		return false, nil
	}
	return false, m.store.failed(op, h, code)
}

// Put sets the value of key. When it has returned, every Get in any process sees it, and it survives the death of this one;
// power loss only after Sync.
func (m *Map[K, V]) Put(key K, value V) error {
	h, err := m.store.take()
	if err != nil {
		return m.store.refused("put", err)
	}
	defer m.store.giveWriter(h)
	k, v, err := m.encode(h, &key, &value)
	if err != nil {
		return m.store.refused("put", err)
	}
	if code := h.put(k, v); code != OK {
		return m.store.failed("put", h, code)
	}
	return nil
}

// Insert sets the value of key only if key is absent, and tells whether it was.
func (m *Map[K, V]) Insert(key K, value V) (inserted bool, err error) {
	return m.put("insert", &key, &value, 0)
}

// Delete removes key, and tells whether it was there.
func (m *Map[K, V]) Delete(key K) (existed bool, err error) {
	h, err := m.store.take()
	if err != nil {
		return false, m.store.refused("delete", err)
	}
	defer m.store.giveWriter(h)
	k, err := m.keys.encode(&key, &h.key)
	if err != nil {
		return false, m.store.refused("delete", err)
	}
	switch code := h.remove(k); code {
	case OK:
		return true, nil
	case ErrNotFound:
		return false, nil
	default:
		return false, m.store.failed("delete", h, code)
	}
}

func (m *Map[K, V]) encode(h *handle, key *K, value *V) (k, v span, err error) {
	if k, err = m.keys.encode(key, &h.key); err == nil {
		v, err = m.values.encode(value, &h.value)
	}
	return k, v, err
}

// ---- read, decide, write only if nothing changed ------------------------------------------------------------------

// look reads a key with its version, which is 0 if the key is absent.
func (m *Map[K, V]) look(op string, key *K, value *V) (version uint64, err error) {
	h, err := m.store.take()
	if err != nil {
		return 0, m.store.refused(op, err)
	}
	defer m.store.give(h)
	k, err := m.keys.encode(key, &h.key)
	if err != nil {
		return 0, m.store.refused(op, err)
	}
	found, version, code := h.entryGet(k)
	switch code {
	case OK:
		if err = m.values.decode(found, value); err != nil {
			return 0, m.store.refused(op, err)
		}
		return version, nil
	case ErrNotFound:
		return 0, nil
	}
	return 0, m.store.failed(op, h, code)
}

// put puts a value if key still is at a version, 0 meaning absent, and tells whether it was.
func (m *Map[K, V]) put(op string, key *K, value *V, version uint64) (written bool, err error) {
	h, err := m.store.take()
	if err != nil {
		return false, m.store.refused(op, err)
	}
	defer m.store.giveWriter(h)
	k, v, err := m.encode(h, key, value)
	if err != nil {
		return false, m.store.refused(op, err)
	}
	return m.written(op, h, h.entryPut(k, v, version))
}

// remove removes key if it still is at a version, and tells whether it was.
func (m *Map[K, V]) remove(op string, key *K, version uint64) (removed bool, err error) {
	h, err := m.store.take()
	if err != nil {
		return false, m.store.refused(op, err)
	}
	defer m.store.giveWriter(h)
	k, err := m.keys.encode(key, &h.key)
	if err != nil {
		return false, m.store.refused(op, err)
	}
	return m.written(op, h, h.entryRemove(k, version))
}

func (m *Map[K, V]) written(op string, h *handle, code Code) (bool, error) {
	switch code {
	case OK:
		return true, nil
	case ErrExists, conflict, ErrNotFound:
		return false, nil
	}
	return false, m.store.failed(op, h, code)
}

// GetOrPut returns the value of key, and loaded true; if key is absent, it puts value and returns it.
func (m *Map[K, V]) GetOrPut(key K, value V) (actual V, loaded bool, err error) {
	return m.getOrPut("get or put", &key, func() (V, error) { return value, nil })
}

// GetOrPutFunc is GetOrPut with a value that is only made if key is absent. If somebody else puts one while value runs, then
// that is returned, with loaded true. If value returns an error, then nothing is put, and GetOrPutFunc returns the error.
func (m *Map[K, V]) GetOrPutFunc(key K, value func() (V, error)) (actual V, loaded bool, err error) {
	return m.getOrPut("get or put", &key, value)
}

func (m *Map[K, V]) getOrPut(op string, key *K, value func() (V, error)) (actual V, loaded bool, err error) {
	made := false
	var mine V
	for {
		version, err := m.look(op, key, &actual)
		if err != nil || version != 0 {
			return actual, version != 0, err
		}
		if !made {
			if mine, err = value(); err != nil {
				return actual, false, err
			}
			made = true
		}
		inserted, err := m.put(op, key, &mine, 0)
		if err != nil || inserted {
			return mine, false, err
		}
	}
}

// Update changes the value of key: it calls fn with the value and true, or with a zero value and false if key is absent, and
// puts what fn returns; if fn returns false, key is removed, or stays absent. If somebody else changes key meanwhile, fn is
// called again with what is there then: fn may run several times, and must do nothing else.
func (m *Map[K, V]) Update(key K, fn func(value V, ok bool) (next V, keep bool)) error {
	for {
		var value V
		version, err := m.look("update", &key, &value)
		if err != nil {
			return err
		}
		next, keep := fn(value, version != 0)
		var written bool
		switch {
		case keep:
			written, err = m.put("update", &key, &next, version)
		case version == 0:
			written = true
		default:
			written, err = m.remove("update", &key, version)
		}
		if err != nil || written {
			return err
		}
	}
}

// CompareAndSwap puts next if the value of key is old, and tells whether it was. Values are compared by their encodings. If
// somebody else changes key meanwhile, CompareAndSwap looks again: perhaps to the same value.
func (m *Map[K, V]) CompareAndSwap(key K, old, next V) (swapped bool, err error) {
	const op = "compare and swap"
	h, err := m.store.take()
	if err != nil {
		return false, m.store.refused(op, err)
	}
	defer m.store.giveWriter(h)
	for {
		k, expected, err := m.encode(h, &key, &old)
		if err != nil {
			return false, m.store.refused(op, err)
		}
		found, version, code := h.entryGet(k)
		switch {
		case code == ErrNotFound:
			return false, nil
		case code != OK:
			return false, m.store.failed(op, h, code)
		case !bytes.Equal(found, unsafe.Slice(expected.start, expected.size)):
			return false, nil
		}
		v, err := m.values.encode(&next, &h.value) // In the room of what was expected.
		if err != nil {
			return false, m.store.refused(op, err)
		}
		swapped, err := m.written(op, h, h.entryPut(k, v, version))
		if swapped || err != nil {
			return swapped, err
		}
	}
}

// Number is what Add adds.
type Number interface {
	~uint8 | ~uint16 | ~uint32 | ~uint64 | ~int8 | ~int16 | ~int32 | ~int64 | ~float32 | ~float64
}

// Add adds delta to the value of key, an absent one counting as 0, and returns the sum. However many goroutines and processes
// add at once, nothing is lost. Integers wrap around.
func Add[K any, V Number](m *Map[K, V], key K, delta V) (sum V, err error) {
	for {
		var value V
		version, err := m.look("add", &key, &value)
		if err != nil {
			return 0, err
		}
		sum = value + delta
		written, err := m.put("add", &key, &sum, version)
		if err != nil || written {
			return sum, err
		}
	}
}
