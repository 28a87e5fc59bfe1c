package opendiskmap

// GetMany looks all keys up, several times as fast as one Get after another: values[i] and ok[i] are what Get(keys[i])
// returns. It is no snapshot: each value was current at some moment of the call. values and ok have the length of keys.
func (m *Map[K, V]) GetMany(keys []K, values []V, ok []bool) error {
	const op = "get many"
	if len(values) != len(keys) || len(ok) != len(keys) {
		return &Error{Op: op, Path: m.store.path, Code: ErrInvalid, Message: "keys, values and ok differ in length"}
	}
	h, err := m.store.take()
	if err != nil {
		return m.store.refused(op, err)
	}
	defer m.store.give(h)
	for len(keys) > 0 {
		n := min(len(keys), manyMax)
		if err := m.getSome(h, keys[:n], values, ok); err != nil {
			return err
		}
		keys, values, ok = keys[n:], values[n:], ok[n:]
	}
	return nil
}

func (m *Map[K, V]) getSome(h *handle, keys []K, values []V, ok []bool) (err error) {
	const op = "get many"
	h.key, h.ends = h.key[:0], h.ends[:0]
	for i := range keys {
		if h.key, err = m.keys.appendTo(h.key, &keys[i]); err != nil {
			return m.store.refused(op, err)
		}
		h.ends = append(h.ends, uint64(len(h.key)))
	}
	count, code := h.getMany(h.key, h.ends)
	for i := range count {
		found, there := h.native.value(i)
		ok[i] = there
		if !there {
			var absent V
			values[i] = absent
		} else if err := m.values.decode(found, &values[i]); err != nil {
			return m.store.refused(op, err)
		}
	}
	if code != OK {
		return m.store.failed(op, h, code)
	}
	return nil
}

// PutMany puts all entries, in order. It is not atomic: if it fails, the first of them may be in the map. A Batch tells
// which, and can do other writes, too.
func (m *Map[K, V]) PutMany(keys []K, values []V) error {
	if len(values) != len(keys) {
		return &Error{Op: "put many", Path: m.store.path, Code: ErrInvalid, Message: "keys and values differ in length"}
	}
	b := m.Batch()
	for i := range keys {
		b.Put(keys[i], values[i])
	}
	return b.Write()
}

// A Batch is a list of writes that are done in one call, in their order. It is not atomic: others see them one by one, and a
// crash may keep only the first of them. A Batch is used by one goroutine at a time.
type Batch[K, V any] struct {
	m         *Map[K, V]
	ops       []byte
	keys      []byte
	keyEnds   []uint64
	values    []byte
	valueEnds []uint64
	outcomes  []byte
	done      int
	err       error // the first encoding that failed
}

// Batch makes an empty batch.
func (m *Map[K, V]) Batch() *Batch[K, V] { return &Batch[K, V]{m: m} }

// Put adds: set the value of key.
func (b *Batch[K, V]) Put(key K, value V) { b.add(opPut, &key, &value) }

// Insert adds: set the value of key only if key is absent.
func (b *Batch[K, V]) Insert(key K, value V) { b.add(opInsert, &key, &value) }

// Delete adds: remove key.
func (b *Batch[K, V]) Delete(key K) { b.add(opRemove, &key, nil) }

func (b *Batch[K, V]) add(op byte, key *K, value *V) {
	keys, err := b.m.keys.appendTo(b.keys, key)
	values := b.values
	if err == nil && value != nil {
		values, err = b.m.values.appendTo(values, value)
	}
	if err != nil {
		if b.err == nil {
			b.err = err
		}
		return
	}
	b.ops = append(b.ops, op)
	b.keys, b.keyEnds = keys, append(b.keyEnds, uint64(len(keys)))
	b.values, b.valueEnds = values, append(b.valueEnds, uint64(len(values)))
}

// Len is the number of writes.
func (b *Batch[K, V]) Len() int { return len(b.ops) }

// Write does the writes. If a key or value could not be encoded, or is too big, it does none. On another error, Done tells
// how many were done. Writing again does all of them again; Reset makes the batch empty.
func (b *Batch[K, V]) Write() error {
	const op = "batch"
	b.done = 0
	if b.err != nil {
		return b.m.store.refused(op, b.err)
	}
	h, err := b.m.store.take()
	if err != nil {
		return b.m.store.refused(op, err)
	}
	defer b.m.store.giveWriter(h)
	b.outcomes = append(b.outcomes[:0], make([]byte, len(b.ops))...)
	var code Code
	b.done, code = h.writeMany(b.ops, b.keys, b.keyEnds, b.values, b.valueEnds, b.outcomes)
	if code != OK {
		return b.m.store.failed(op, h, code)
	}
	return nil
}

// Done is the number of writes that the last Write has done: the first ones.
func (b *Batch[K, V]) Done() int { return b.done }

// Outcome is what became of write i, i < Done: OK; ErrExists, if it was an Insert of a key that was there; ErrNotFound, if it
// was a Delete of a key that was not.
func (b *Batch[K, V]) Outcome(i int) Code { return Code(b.outcomes[:b.done][i]) }

// Reset makes the batch empty, and keeps its memory.
func (b *Batch[K, V]) Reset() {
	b.ops, b.keys, b.keyEnds = b.ops[:0], b.keys[:0], b.keyEnds[:0]
	b.values, b.valueEnds = b.values[:0], b.valueEnds[:0]
	b.done, b.err = 0, nil
}
