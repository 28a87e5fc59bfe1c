package opendiskmap

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func TestAReaderFindsWhatTheMapHolds(t *testing.T) {
	m := entries(t, 100)
	must(t, m.Read(func(r *Reader[uint64, string]) error {
		for k := range uint64(3000) {
			k %= 150
			wanted, there := fmt.Sprint("value ", k), k < 100
			value, ok, err := r.Get(k)
			want(t, err, ok, there)
			slice, ok, err := r.Slice(k)
			want(t, err, ok, there)
			if there && (value != wanted || string(slice) != wanted) {
				t.Fatalf("key %d: %q, %q", k, value, slice)
			}
			has, err := r.Has(k)
			want(t, err, has, there)
		}
		// No snapshot.
		must(t, m.Put(7, "seven"))
		value, ok, err := r.Get(7)
		want(t, err, ok, true)
		want(t, err, value, "seven")
		_, err = m.Delete(7)
		must(t, err)
		has, err := r.Has(7)
		want(t, err, has, false)
		return nil
	}))
}

func TestAReaderLooksUpDirectly(t *testing.T) {
	m := fresh(t, Str, U64)
	needDirectCalls(t, m)
	long := strings.Repeat("k", 2000)
	must(t, m.Put("a", 1))
	must(t, m.Put(long, 2))
	must(t, m.Read(func(r *Reader[string, uint64]) error {
		out := r.h.out
		for i := 0; out.pace.direct < 1000; i++ {
			if i > 100_000 {
				t.Fatal("no more than", out.pace.run, "direct calls in a row")
			}
			r.Has("a")
			r.Has("b") // The first look at a stripe is no direct one, either.
		}
		for key, status := range map[string]Code{"a": OK, "b": ErrNotFound, long: wouldBlock} {
			left := out.pace.direct
			_, ok, err := r.Slice(key)
			want(t, err, ok, key != "b")
			want(t, nil, Code(out.status), status)
			want(t, nil, left-out.pace.direct, 1)
		}
		return nil
	}))
}

// As TestColdLookUpsAreNotDirect, where each Read is on another thread.
func TestColdReadersAreNotDirect(t *testing.T) {
	m := entries(t, 10)
	needDirectCalls(t, m)
	read := func() (cold bool) {
		must(t, m.Read(func(r *Reader[uint64, string]) error {
			for range 1025 {
				_, err := r.Has(1)
				must(t, err)
			}
			cold = r.h.out.pace.cold > 0
			return nil
		}))
		return cold
	}
	turn, done := make(chan bool), make(chan bool)
	defer close(turn)
	go func() {
		runtime.LockOSThread()
		for range turn {
			read()
			done <- true
		}
	}()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	for i := 0; i < 20 || read(); i++ { // Until nobody has waited for a while.
		if i > 1000 {
			t.Skip("something here waits for the disk all the time")
		}
		read()
		turn <- true
		<-done
	}
	waitForDisk(t)
	want(t, nil, read(), true)
}

func TestAReadersSlicesStayUntilItsEnd(t *testing.T) {
	m := overwritten(t)
	must(t, m.Read(func(r *Reader[uint64, string]) error {
		var slices [500][]byte
		for k := range slices {
			slice, ok, err := r.Slice(uint64(k))
			want(t, err, ok, true)
			slices[k] = slice
		}
		for k := range uint64(500) {
			must(t, m.Put(k, strings.Repeat("w", 200)))
		}
		supported(t, m.Compact(t.Context(), nil))
		for range 4 * sweepEvery { // From then on no other handle keeps what compaction has freed.
			_, _, err := m.Get(1)
			must(t, err)
		}
		for i := range 4000 {
			r.direct = m.lanes != nil && i < 2000 // The others through cgo, as that is where a handle would be refreshed.
			value, ok, err := r.Get(1)
			want(t, err, ok, true)
			want(t, err, value, strings.Repeat("w", 200))
		}
		for _, slice := range slices {
			want(t, nil, string(slice), strings.Repeat("v", 200))
		}
		return nil
	}))
}

func TestAReadPassesErrorsAndPanicsOn(t *testing.T) {
	m := entries(t, 1)
	oops := errors.New("oops")
	var kept *Reader[uint64, string]
	if err := m.Read(func(r *Reader[uint64, string]) error { kept = r; return oops }); err != oops {
		t.Error(err)
	}
	if _, _, err := kept.Slice(0); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "returned") {
		t.Error(err)
	}
	if _, err := kept.Has(0); !errors.Is(err, ErrInvalid) {
		t.Error(err)
	}
	func() {
		defer func() { want(t, nil, recover(), any("oops")) }()
		m.Read(func(*Reader[uint64, string]) error { panic("oops") })
	}()
	for i := range m.store.handles {
		if m.store.handles[i].state.Load() == busy {
			t.Error("a handle was not given back")
		}
	}
}

func TestAReaderOfEveryKindOfMap(t *testing.T) {
	long := strings.Repeat("k", 1<<12)
	kinds := maps.Clone(kindsWithoutLanes)
	kinds["plain"] = kindOfMap{Str, &Options{}}
	for name, c := range kinds {
		t.Run(name, func(t *testing.T) {
			path := directory(t)
			writer := reopen(t, path, c.key, U64)
			must(t, writer.Put("a", 1))
			must(t, writer.Put(long, 2))
			m, err := Open(path, c.key, U64, c.opts)
			must(t, err)
			defer m.Close()
			must(t, m.Read(func(r *Reader[string, uint64]) error {
				want(t, nil, r.direct, m.lanes != nil)
				for range 100 {
					value, ok, err := r.Get("a")
					want(t, err, ok, true)
					want(t, err, value, 1)
					value, _, err = r.Get(long)
					want(t, err, value, 2)
					has, err := r.Has("b")
					want(t, err, has, false)
				}
				_, err := r.Has(strings.Repeat("k", 1<<24))
				if !errors.Is(err, ErrTooBig) {
					t.Error(err)
				}
				return nil
			}))
		})
	}
}

// Who can write nothing builds an index of his own for a copy, whose index is not to be trusted; a writer makes another one,
// of which the first says nothing.
func TestAReadOfAReadOnlyMapBeginsWithWhatIsThere(t *testing.T) {
	original, path := directory(t), directory(t)
	m, err := Open(original, U64, U64, nil)
	must(t, err)
	must(t, m.Put(1, 1))
	must(t, m.Sync(t.Context()))
	must(t, os.CopyFS(path, os.DirFS(original)))
	must(t, m.Close())

	m, err = Open(path, U64, U64, &Options{ReadOnly: true})
	must(t, err)
	defer m.Close()
	has, err := m.Has(1)
	want(t, err, has, true)
	stat, err := m.Stat()
	want(t, err, stat.Recovery.Kind, RecoveryPrivate)
	must(t, reopen(t, path, U64, U64).Put(2, 2))
	must(t, m.Read(func(r *Reader[uint64, uint64]) error {
		value, ok, err := r.Get(2)
		want(t, err, ok, true)
		want(t, err, value, 2)
		return nil
	}))
}

func TestCloseWithinARead(t *testing.T) {
	path := directory(t)
	m := reopen(t, path, U64, Str)
	must(t, m.Put(1, "one"))
	must(t, m.Read(func(r *Reader[uint64, string]) error {
		slice, _, err := r.Slice(1)
		must(t, err)
		must(t, m.Close())
		want(t, nil, string(slice), "one")
		value, ok, err := r.Get(1)
		want(t, err, ok, true)
		want(t, err, value, "one")
		return nil
	}))
	want(t, nil, mappings(t, path), 0)
	if err := m.Read(func(*Reader[uint64, string]) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Readers beside writers and compaction: a value is always one that was written whole.
func TestReadersBesideWriters(t *testing.T) {
	m := fresh(t, U64, Str)
	value := func(n uint64) string { return strings.Repeat(string('a'+rune(n%26)), int(10+n%200)) }
	whole := func(slice []byte) bool { return string(slice) == strings.Repeat(string(slice[:1]), len(slice)) }
	for k := range uint64(300) {
		must(t, m.Put(k, value(k)))
	}
	var done atomic.Bool
	var readers, writers sync.WaitGroup
	spawn(&writers, func() {
		for n := uint64(0); !done.Load(); n++ {
			if err := m.Put(n%300, value(n)); err != nil {
				t.Error(err)
				return
			}
			if n%5000 == 0 {
				if err := m.Compact(t.Context(), nil); err != nil && !errors.Is(err, ErrUnsupported) {
					t.Error(err)
					return
				}
			}
		}
	})
	for range 4 {
		spawn(&readers, func() {
			for range 50 {
				err := m.Read(func(r *Reader[uint64, string]) error {
					var first []byte
					for k := range uint64(300) {
						slice, ok, err := r.Slice(k)
						if err != nil || !ok {
							return fmt.Errorf("key %d: %v, %w", k, ok, err)
						}
						if !whole(slice) {
							return fmt.Errorf("key %d: %q", k, slice)
						}
						if k == 0 {
							first = slice
						}
					}
					if !whole(first) {
						return fmt.Errorf("the first slice has become %q", first)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	readers.Wait()
	done.Store(true)
	writers.Wait()
}
