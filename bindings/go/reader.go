package opendiskmap

// A Reader looks up keys, within the Map.Read that made it, for one goroutine at a time.
type Reader[K, V any] struct {
	m       *Map[K, V]
	h       *handle // nil once the Read has returned
	direct  bool    // look-ups may be direct calls, as long as it has a handle
	lookUps uint32
}

// Read calls fn with a Reader, and returns what fn returns. It is for many look-ups in a row: each is up to a fifth
// faster than a View, and what Slice returns stays valid until fn returns.
//
// It is no snapshot: each look-up finds what the map holds at that moment, whoever writes meanwhile, fn included. Only of a map
// that is opened read-only fn may miss what is written after it began. The disk space of what is overwritten or removed meanwhile
// may be in use until fn has returned.
func (m *Map[K, V]) Read(fn func(r *Reader[K, V]) error) error {
	const op = "read"
	h, err := m.store.take()
	if err != nil {
		return m.store.refused(op, err)
	}
	r := Reader[K, V]{m: m, h: h, direct: m.lanes != nil}
	defer func() { // Also if fn panics.
		r.h, r.direct = nil, false
		h.refresh() // It may rest from here on.
		h.calls += min(r.lookUps, sweepEvery)
		m.store.give(h)
	}()
	if code := h.refresh(); code != OK { // For maps opened read-only: it looks for a newer index.
		return m.store.failed(op, h, code)
	}
	return fn(&r)
}

// Slice returns the bytes of key's value as they lie in the map, 8-byte aligned, without a copy, and whether there is one. They
// must not be written to: that ends the program. They are valid, and do not change, until the function given to Read returns.
func (r *Reader[K, V]) Slice(key K) (value []byte, ok bool, err error) {
	code := wouldBlock
	r.lookUps++
	if r.direct {
		code = r.h.tryGet(r.m.keys.asIs(&key))
	}
	if code == wouldBlock {
		code, err = r.getThroughCgo(&key)
	}
	if code != OK {
		return nil, false, err
	}
	return r.h.found(), true, nil
}

// Get returns the value stored under key, and whether there is one. The value is a copy, as Map.Get returns it.
func (r *Reader[K, V]) Get(key K) (value V, ok bool, err error) {
	found, ok, err := r.Slice(key)
	if !ok {
		return value, false, err
	}
	if err := r.m.values.decode(found, &value); err != nil {
		return value, false, r.m.store.refused("read", err)
	}
	return value, true, nil
}

// Has tells whether key is in the map.
func (r *Reader[K, V]) Has(key K) (bool, error) {
	_, ok, err := r.Slice(key)
	return ok, err
}

// getThroughCgo looks key up where a direct call can not. err is nil if it finds none.
func (r *Reader[K, V]) getThroughCgo(key *K) (code Code, err error) {
	const op = "read"
	if r.h == nil {
		return ErrInvalid, &Error{Op: op, Path: r.m.store.path, Code: ErrInvalid, Message: "the Read of this Reader has returned"}
	}
	k, err := r.m.keys.encode(key, &r.h.key)
	if err != nil {
		return ErrEncoding, r.m.store.refused(op, err)
	}
	code = r.h.getLent(k, r.direct)
	if code != OK && code != ErrNotFound {
		err = r.m.store.failed(op, r.h, code)
	}
	return code, err
}
