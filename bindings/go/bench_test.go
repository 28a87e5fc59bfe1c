package opendiskmap

import (
	"strconv"
	"testing"
)

// What a call costs beyond the look-up itself: a map that fits the processor's cache. Against other stores: bench/go.
func BenchmarkCalls(b *testing.B) {
	const count = 1000
	numbers, strs := fresh(b, U64, U64), fresh(b, Str, Str)
	keys, names := make([]uint64, count), make([]string, count)
	for i := range keys {
		keys[i], names[i] = uint64(i), strconv.Itoa(i)
	}
	must(b, numbers.PutMany(keys, keys))
	must(b, strs.PutMany(names, names))
	builtIn := map[string]string{}
	for _, name := range names {
		builtIn[name] = name
	}
	run := func(name string, call func(i int)) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for i := range b.N {
				call(i % count)
			}
		})
	}
	sum := 0
	look := func(value []byte) error { sum += len(value); return nil }
	h, err := numbers.store.take()
	must(b, err)
	run("crossing into C alone", func(int) { h.refresh() })
	numbers.store.give(h)
	run("borrowing a handle", func(int) { h, _ := numbers.store.take(); numbers.store.give(h) })
	run("built-in map", func(i int) { sum += len(builtIn[names[i]]) })
	run("Get u64", func(i int) { numbers.Get(keys[i]) })
	run("Get str", func(i int) { strs.Get(names[i]) })
	run("View str", func(i int) { strs.View(names[i], look) })
	run("Has str", func(i int) { strs.Has(names[i]) })
	run("Put u64", func(i int) { numbers.Put(keys[i], keys[i]) })
	run("Put str", func(i int) { strs.Put(names[i], names[i]) })
	values, ok := make([]uint64, 64), make([]bool, 64)
	b.Run("GetMany u64, a key", func(b *testing.B) {
		for i := 0; i < b.N; i += 64 {
			numbers.GetMany(keys[i%900:][:64], values, ok)
		}
	})
	b.Run("Walk.Slices, an entry", func(b *testing.B) {
		for i := 0; i < b.N; {
			for range strs.Walk(Start).Slices() {
				i++
			}
		}
	})
	b.Run("View str, by all processors", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			sum := 0
			look := func(value []byte) error { sum += len(value); return nil }
			for i := 0; pb.Next(); i++ {
				strs.View(names[i%count], look)
			}
		})
	})
}
