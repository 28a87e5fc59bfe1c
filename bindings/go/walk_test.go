package opendiskmap

import (
	"errors"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"
)

func numbers(t *testing.T, count uint32) *Map[uint32, uint64] {
	m := fresh(t, U32, U64)
	for i := range count {
		must(t, m.Put(i, uint64(i)*3))
	}
	return m
}

func TestAWalkVisitsEveryEntryOnce(t *testing.T) {
	const count = 5000
	m := numbers(t, count)
	seen := make([]int, count)
	var err error
	for k, v := range m.All(&err) {
		seen[k]++
		want(t, nil, v, uint64(k)*3)
	}
	must(t, err)
	if slices.Min(seen) != 1 || slices.Max(seen) != 1 {
		t.Fatal("some entries came twice, or not")
	}
	keys := slices.Sorted(m.Keys(&err))
	want(t, err, len(keys), count)
	want(t, nil, keys[count-1], count-1)
	values := slices.Sorted(m.Values(&err))
	want(t, err, values[count-1], (count-1)*3)
	n := 0
	walk := m.Walk(Start)
	for key, value := range walk.Slices() {
		k, err := U32.Decode(key)
		must(t, err)
		v, err := U64.Decode(value)
		want(t, err, v, uint64(k)*3)
		n++
	}
	want(t, walk.Err(), n, count)
	want(t, nil, walk.Position(), End)
}

func TestALoopMayChangeTheMap(t *testing.T) {
	const count = 5000
	m := numbers(t, count)
	walk := m.Walk(Start)
	for k := range walk.Keys() {
		if k%2 == 1 {
			existed, err := m.Delete(k)
			want(t, err, existed, true)
		} else {
			must(t, m.Put(k, 1))
		}
	}
	must(t, walk.Err())
	want(t, nil, m.Len(), count/2)
}

func TestAWalkSeesWhatWasChangedAheadOfIt(t *testing.T) {
	const count = 5000
	for name, change := range map[string]func(m *Map[uint32, uint64], gone []bool, now []uint64){
		"by its body": func(m *Map[uint32, uint64], gone []bool, now []uint64) {
			for range 3 {
				k := uint32(rand.IntN(count))
				if rand.IntN(2) == 0 {
					_, err := m.Delete(k)
					must(t, err)
					gone[k] = true
				} else if !gone[k] {
					now[k]++
					must(t, m.Put(k, now[k]))
				}
			}
		},
		"by a batch": func(m *Map[uint32, uint64], gone []bool, _ []uint64) {
			k := uint32(rand.IntN(count))
			b := m.Batch()
			b.Delete(k)
			must(t, b.Write())
			gone[k] = true
		},
		"by another goroutine": func(m *Map[uint32, uint64], _ []bool, now []uint64) {
			k := uint32(rand.IntN(count))
			done := make(chan error)
			go func() {
				done <- m.Update(k, func(v uint64, ok bool) (uint64, bool) { return v + 1, ok })
			}()
			must(t, <-done)
			now[k]++
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := numbers(t, count)
			gone, now, seen := make([]bool, count), make([]uint64, count), make([]int, count)
			for k := range now {
				now[k] = uint64(k) * 3
			}
			walk := m.Walk(Start)
			for k, v := range walk.All() {
				want(t, nil, gone[k], false)
				want(t, nil, v, now[k])
				seen[k]++
				change(m, gone, now)
			}
			must(t, walk.Err())
			for k := range seen {
				if seen[k] > 1 || (seen[k] == 0 && !gone[k]) {
					t.Fatal(k, " came ", seen[k], " times")
				}
			}
		})
	}
	m := numbers(t, count)
	var err error
	n := 0
	for range m.Keys(&err) {
		must(t, m.Clear())
		n++
	}
	want(t, err, n, 1)
}

func TestAWalkGoesOnFromAPosition(t *testing.T) {
	const count = 20000
	m := numbers(t, count)
	seen := make([]int, count)
	part := func(w *Walk[uint32, uint64], limit int) {
		for k := range w.Keys() {
			seen[k]++
			if limit--; limit == 0 {
				break
			}
		}
		must(t, w.Err())
	}
	first := m.Walk(Start)
	part(first, count/3)
	inside := Start
	for range first.Keys() { // Another loop over the same walk.
		inside = first.Position()
		break
	}
	if inside == Start || inside == End {
		t.Fatal(inside)
	}
	part(m.Walk(first.Position()), -1) // Another walk.
	if slices.Min(seen) != 1 || slices.Max(seen) > 2 {
		t.Fatal("an entry was missed, or came too often")
	}
}

func TestAWalkSurvivesABodyThatPanics(t *testing.T) {
	m := numbers(t, 10)
	walk := m.Walk(Start)
	func() {
		defer func() { want(t, nil, recover(), "mine") }()
		for range walk.Keys() {
			panic("mine")
		}
	}()
	n := 0
	for range walk.Keys() {
		n++
	}
	want(t, walk.Err(), n, 10)
}

func TestOneLoopOfAWalkAtATime(t *testing.T) {
	m := numbers(t, 10)
	walk := m.Walk(Start)
	for range walk.Keys() {
		for range walk.Keys() {
			t.Error("a loop inside the loop")
		}
		if !errors.Is(walk.Err(), ErrInvalid) {
			t.Fatal(walk.Err())
		}
		break
	}
	// Two walks may be mixed.
	next, stop := iter.Pull(m.Walk(Start).Keys())
	defer stop()
	n := 0
	for range m.Walk(Start).Keys() {
		if _, ok := next(); ok {
			n++
		}
	}
	want(t, nil, n, 10)
}

func TestAValueThatDoesNotFitItsEncodingEndsTheLoopWithAnError(t *testing.T) {
	path := directory(t)
	m := reopen(t, path, Str, Str)
	must(t, m.Put("a", "no number"))
	other, err := Open(path, Str, U64, &Options{AnySchema: true})
	must(t, err)
	defer other.Close()
	for range other.All(&err) {
		t.Error("that is no number")
	}
	if !errors.Is(err, ErrEncoding) {
		t.Fatal(err)
	}
	if _, _, err = other.Get("a"); !errors.Is(err, ErrEncoding) {
		t.Fatal(err)
	}
	if err = other.GetMany([]string{"a"}, make([]uint64, 1), make([]bool, 1)); !errors.Is(err, ErrEncoding) {
		t.Fatal(err)
	}
}
