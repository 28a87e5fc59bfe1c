package opendiskmap

import (
	"iter"
	"math"
)

// A Position is a point of a walk from which another one can go on, in any process. It means nothing for another map.
type Position uint64

const (
	Start Position = 0
	End   Position = math.MaxUint64
)

// A Walk visits the entries of a map: every key that is there during the whole walk exactly once, in no meaningful order.
// Keys removed before the walk reaches them do not come; keys put meanwhile may or may not. Values are current. Everything may
// be changed meanwhile, also by the loop's own body. A loop reads up to 256 entries ahead: what is changed otherwise than by
// this Map, by another process for example, it may see as late as that.
//
//	walk := m.Walk(opendiskmap.Start)
//	for key, value := range walk.All() {
//		...
//	}
//	if err := walk.Err(); err != nil {
//		...
//	}
//
// A loop that was left early can be gone on with: by another loop over the same Walk, or from its Position by another Walk.
// It repeats at most the entries of one chunk of the index, some thousands, and misses none. So positions are for going on after
// many entries: a loop that is left after a few may begin at the same place again. For pages of a few entries, use
// [iter.Pull2] with All.
//
// A Walk is used by one goroutine at a time, and by one loop.
type Walk[K, V any] struct {
	m    *Map[K, V]
	from Position
	iter *nativeIter // of the loop that runs
	err  error
}

// Walk makes a walk that begins at a position.
func (m *Map[K, V]) Walk(from Position) *Walk[K, V] { return &Walk[K, V]{m: m, from: from} }

// Err is the error that ended the last loop, or nil if it came to the end or was left.
func (w *Walk[K, V]) Err() error { return w.err }

// Position is where another walk can go on. It is End after a loop that came to its end.
func (w *Walk[K, V]) Position() Position {
	if w.iter != nil {
		return w.iter.position()
	}
	return w.from
}

// All is a loop over the entries from the walk's position on.
func (w *Walk[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		w.loop(func(key, value []byte) (more bool, err error) {
			var k K
			var v V
			if err = w.m.keys.decode(key, &k); err == nil {
				err = w.m.values.decode(value, &v)
			}
			return err == nil && yield(k, v), err
		})
	}
}

// Keys is a loop over the keys alone.
func (w *Walk[K, V]) Keys() iter.Seq[K] {
	return func(yield func(K) bool) {
		w.loop(func(key, _ []byte) (more bool, err error) {
			var k K
			err = w.m.keys.decode(key, &k)
			return err == nil && yield(k), err
		})
	}
}

// Values is a loop over the values alone.
func (w *Walk[K, V]) Values() iter.Seq[V] {
	return func(yield func(V) bool) {
		w.loop(func(_, value []byte) (more bool, err error) {
			var v V
			err = w.m.values.decode(value, &v)
			return err == nil && yield(v), err
		})
	}
}

// Slices is a loop over the keys and values as they lie in the map, 8-byte aligned, without a copy. They must not be written
// to, and are valid until the loop's body ends.
func (w *Walk[K, V]) Slices() iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		w.loop(func(key, value []byte) (more bool, err error) { return yield(key, value), nil })
	}
}

// loop visits entries until visit returns false, an error or the end.
func (w *Walk[K, V]) loop(visit func(key, value []byte) (more bool, err error)) {
	const op = "walk"
	s := w.m.store
	if w.iter != nil {
		w.err = &Error{Op: op, Path: s.path, Code: ErrInvalid, Message: "a loop over this Walk is running already"}
		return
	}
	h, err := s.take()
	if w.err = err; err != nil {
		w.err = s.refused(op, err)
		return
	}
	defer s.give(h)
	iter, code := h.iterate(w.from)
	if code != OK {
		w.err = s.failed(op, h, code)
		return
	}
	w.iter = &iter
	defer func() { // The body may panic.
		w.from, w.iter = iter.position(), nil
		iter.end()
	}()
	s.walks.Add(1)
	defer s.walks.Add(-1)
	for {
		changes := s.changes.Load()
		count, code := iter.nextMany()
		if code == done {
			return
		}
		if code != OK {
			w.err = s.failed(op, h, code)
			return
		}
		for i := range count {
			key := iter.key(i)
			value, _ := iter.value(i)
			if s.changes.Load() != changes { // The entry was read ahead: it may be another by now.
				if value, code = h.get(spanOf(key)); code == ErrNotFound {
					continue
				} else if code != OK {
					w.err = s.failed(op, h, code)
					return
				}
			}
			more, err := visit(key, value)
			if err != nil {
				w.err = s.refused(op, err)
				return
			}
			if !more {
				return
			}
		}
	}
}

// All is a loop over all entries, as a Walk makes it. If an error ends the loop, *err is set to it; otherwise to nil.
//
//	var err error
//	for key, value := range m.All(&err) {
//		...
//	}
//	if err != nil {
//		...
//	}
func (m *Map[K, V]) All(err *error) iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		w := m.Walk(Start)
		w.All()(yield)
		*err = w.Err()
	}
}

// Keys is a loop over all keys; err as in All.
func (m *Map[K, V]) Keys(err *error) iter.Seq[K] {
	return func(yield func(K) bool) {
		w := m.Walk(Start)
		w.Keys()(yield)
		*err = w.Err()
	}
}

// Values is a loop over all values; err as in All.
func (m *Map[K, V]) Values(err *error) iter.Seq[V] {
	return func(yield func(V) bool) {
		w := m.Walk(Start)
		w.Values()(yield)
		*err = w.Err()
	}
}
