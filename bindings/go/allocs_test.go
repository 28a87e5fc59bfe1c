package opendiskmap

import (
	"strings"
	"testing"
)

type point struct {
	X, Y float64
	ID   uint32
}

// A call whose result needs no memory takes none.
func TestHotPathsDoNotAllocate(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector allocates by itself")
	}
	numbers, strs, structs := fresh(t, U64, U64), fresh(t, Str, Str), fresh[string, record](t, Str, Struct[record]())
	raw := fresh(t, Bytes, Bytes)
	points := fresh[uint64, point](t, U64, Struct[point]())
	long := strings.Repeat("v", 1000)
	key := []byte("key")
	var sum int
	look := func(value []byte) error { sum += len(value); return nil }
	keys, values, ok := make([]uint64, 100), make([]uint64, 100), make([]bool, 100)
	somePoints := make([]point, 100)
	id := FieldOf[uint32](Struct[record](), "id")
	batch := numbers.Batch()
	must(t, strs.Put("key", long))
	must(t, structs.Put("key", aRecord))
	must(t, numbers.Put(1, 1))
	for i := range keys {
		keys[i] = uint64(i)
		must(t, points.Put(uint64(i), point{X: 1}))
	}
	n := uint64(0)
	for name, call := range map[string]func(){
		"get u64":      func() { numbers.Get(1) },
		"get absent":   func() { strs.Get("absent") },
		"has":          func() { strs.Has("key") },
		"view":         func() { strs.View("key", look) },
		"put u64":      func() { n++; numbers.Put(n%1000, n) },
		"put str":      func() { strs.Put("key", long) },
		"put bytes":    func() { raw.Put(key, key) },
		"put struct":   func() { structs.Put("key", aRecord) },
		"insert":       func() { numbers.Insert(1, 2) },
		"delete":       func() { numbers.Delete(1) },
		"add":          func() { Add(numbers, 5, 1) },
		"compare":      func() { numbers.CompareAndSwap(5, 1, 1) },
		"get many u64": func() { numbers.GetMany(keys, values, ok) },
		"get struct":   func() { points.Get(1) },
		"get many structs": func() {
			points.GetMany(keys, somePoints, ok)
		},
		"update struct": func() {
			points.Update(1, func(p point, ok bool) (point, bool) { p.X++; return p, true })
		},
		"len": func() { numbers.Len() },
		"read a field": func() {
			structs.View("key", func(value []byte) error { _, err := id.Read(value); return err })
		},
		"update": func() { numbers.Update(5, func(v uint64, ok bool) (uint64, bool) { return v + 1, true }) },
		"batch": func() {
			batch.Reset()
			batch.Put(1, 2)
			batch.Delete(3)
			if batch.Write() != nil {
				panic("batch")
			}
		},
	} {
		if allocs := testing.AllocsPerRun(200, call); allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
	// One for the string itself.
	if allocs := testing.AllocsPerRun(200, func() { strs.Get("key") }); allocs != 1 {
		t.Errorf("get str: %v allocations", allocs)
	}
	// One for the Reader.
	if allocs := testing.AllocsPerRun(10, func() {
		strs.Read(func(r *Reader[string, string]) error {
			for range 1000 {
				value, _, _ := r.Slice("key")
				sum += len(value)
			}
			return nil
		})
	}); allocs > 1 {
		t.Errorf("read: %v allocations", allocs)
	}
	// A walk takes memory once, whatever the number of entries.
	for i := range uint64(1000) {
		must(t, numbers.Put(i, i))
	}
	if allocs := testing.AllocsPerRun(10, func() {
		for range numbers.Walk(Start).All() {
		}
	}); allocs > 10 {
		t.Errorf("walk: %v allocations", allocs)
	}
}
