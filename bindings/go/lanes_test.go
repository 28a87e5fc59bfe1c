package opendiskmap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// withLanes is a new map with n entries, k: "value k"; the calling goroutine keeps its thread, which has a lane.
func withLanes(t *testing.T, n uint64) *Map[uint64, string] {
	t.Helper()
	m := entries(t, n)
	needDirectCalls(t, m)
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	expect(t, m, 0, n)
	expect(t, m, 0, n)
	return m
}

func expect(t *testing.T, m *Map[uint64, string], from, to uint64) {
	t.Helper()
	for k := from; k < to; k++ {
		v, ok, err := m.Get(k)
		if want := fmt.Sprint("value ", k); err != nil || !ok || v != want {
			t.Errorf("key %d: %q, %v, %v", k, v, ok, err)
			return
		}
	}
}

// directCallsLeft sums over the lanes what is left of direct calls until the next through cgo: a direct call takes one from
// it.
func directCallsLeft(m *Map[uint64, string]) (left int) {
	for i := range m.lanes.lanes {
		left += int(m.lanes.lanes[i].pace.direct)
	}
	return left
}

func lanesTaken(m *Map[uint64, string]) (taken int) {
	for i := range m.lanes.lanes {
		taken += int(m.lanes.lanes[i].busy)
	}
	return taken - 1 // The first always is.
}

func TestLookUpsAreDirect(t *testing.T) {
	m := withLanes(t, 100)
	for directCallsLeft(m) < 10 {
		m.Has(0)
	}
	before := directCallsLeft(m)
	expect(t, m, 3, 5)
	m.Has(1)
	m.Has(1000)
	m.View(1, func([]byte) error { return nil })
	want(t, nil, before-directCallsLeft(m), 5)
	want(t, nil, lanesTaken(m), 0)

	// Where odm_try_get would block or refuse, cgo goes on.
	key := strings.Repeat("k", 1<<24)
	texts := fresh(t, Str, U64)
	_, _, err := texts.Get(key)
	if !errors.Is(err, ErrTooBig) || !strings.Contains(err.Error(), "16777216") {
		t.Error(err)
	}
	want(t, nil, lanesTaken(m), 0)
}

func TestMapsThatHaveNoLanes(t *testing.T) {
	for name, c := range kindsWithoutLanes {
		path := directory(t)
		must(t, reopen(t, path, c.key, U64).Put("a", 1))
		m, err := Open(path, c.key, U64, c.opts)
		must(t, err)
		if m.lanes != nil {
			t.Errorf("%s: a map with lanes", name)
		}
		v, ok, err := m.Get("a")
		want(t, err, v, 1)
		want(t, err, ok, true)
		must(t, m.Close())
	}
}

// A value stays as it is during a View, whatever the thread's other look-ups refresh, and a lane is taken once at a time.
func TestALaneIsNotSharedWithinAView(t *testing.T) {
	m := withLanes(t, 200)
	_, err := m.View(7, func(value []byte) error {
		for range 10 {
			for k := range uint64(200) {
				must(t, m.Put(k, fmt.Sprint("value ", k)))
			}
			expect(t, m, 0, 200)
			supported(t, m.Compact(t.Context(), nil))
		}
		want(t, nil, string(value), "value 7")
		want(t, nil, lanesTaken(m), 1)
		return nil
	})
	must(t, err)
	want(t, nil, lanesTaken(m), 0)
}

func TestAPanicGivesTheLaneBack(t *testing.T) {
	m := withLanes(t, 10)
	func() {
		defer func() { recover() }()
		m.View(1, func([]byte) error { panic("oops") })
	}()
	want(t, nil, lanesTaken(m), 0)
	expect(t, m, 0, 10)
}

// The lane that is taken while the map is closed is closed by whoever has it.
func TestCloseWithinAView(t *testing.T) {
	path := directory(t)
	m := reopen(t, path, U64, Str)
	must(t, m.Put(1, "one"))
	m.Has(1)
	_, err := m.View(1, func(value []byte) error {
		must(t, m.Close())
		want(t, nil, string(value), "one")
		return nil
	})
	must(t, err)
	want(t, nil, mappings(t, path), 0)
	if _, err = m.Has(1); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// Close meets look-ups at every point of theirs: afterwards nothing is mapped.
func TestCloseWhileLookUpsRun(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(12)) // Threads are interrupted anywhere, then.
	for range 100 {
		path := directory(t)
		m, err := Open(path, U64, Str, nil)
		must(t, err)
		must(t, m.Put(1, "one"))
		var begun, group sync.WaitGroup
		begun.Add(3)
		for range 3 {
			spawn(&group, func() {
				for i := 0; ; i++ {
					v, _, err := m.Get(1)
					if i == 100 {
						begun.Done()
					}
					if err != nil {
						return
					}
					if v != "one" {
						t.Errorf("have %q", v)
					}
				}
			})
		}
		begun.Wait()
		must(t, m.Close())
		group.Wait()
		want(t, nil, mappings(t, path), 0)
	}
}

// Threads come and go, more of them than there are lanes.
func TestMoreThreadsThanLanes(t *testing.T) {
	m := withLanes(t, 50)
	for range 3 {
		var group, all sync.WaitGroup
		all.Add(100)
		for range 100 {
			spawn(&group, func() {
				runtime.LockOSThread() // For good: the thread ends with the goroutine.
				expect(t, m, 0, 50)
				all.Done()
				all.Wait()
				expect(t, m, 0, 50)
			})
		}
		group.Wait()
	}
	want(t, nil, lanesTaken(m), 0)
	// When they have ended, a thread that is new gets a lane.
	var group sync.WaitGroup
	spawn(&group, func() {
		runtime.LockOSThread()
		for {
			before := directCallsLeft(m)
			m.Has(1)
			if directCallsLeft(m) == before-1 {
				return
			}
		}
	})
	group.Wait()
}

// What the runtime does to goroutines, it does while they are in direct calls, too: it interrupts them to preempt and to
// profile, moves their stacks, and stops the world.
func TestDirectCallsAndTheRuntime(t *testing.T) {
	m := withLanes(t, 1000)
	if pprof.StartCPUProfile(io.Discard) == nil {
		defer pprof.StopCPUProfile()
	}
	var done atomic.Bool
	var group sync.WaitGroup
	for g := range uint64(4) {
		spawn(&group, func() {
			for k := g; !done.Load(); k = (k + 7) % 1000 {
				deep(t, m, k, int(k%100))
			}
		})
	}
	var stats runtime.MemStats
	stack := make([]byte, 1<<16)
	for range 100 {
		runtime.GC()
		runtime.ReadMemStats(&stats)
		runtime.Stack(stack, true)
		var grown sync.WaitGroup
		spawn(&grown, func() { deep(t, m, 1, 2000) }) // A new stack.
		grown.Wait()
	}
	done.Store(true)
	group.Wait()
}

// deep looks a key up, which lies on its stack, from that many calls down.
func deep(t *testing.T, m *Map[uint64, string], key uint64, depth int) {
	if depth == 0 {
		expect(t, m, key, key+1)
		return
	}
	deep(t, m, key, depth-1)
	if depth%50 == 0 {
		if has, err := m.Has(key); !has || err != nil {
			t.Errorf("key %d: %v, %v", key, has, err)
		}
	}
}

// waitForDisk has the calling thread, which it keeps, wait for the disk; the test is skipped if it had not to.
func waitForDisk(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	file := filepath.Join(t.TempDir(), "cold")
	must(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
	f, err := os.Open(file)
	must(t, err)
	defer f.Close()
	must(t, f.Sync())
	syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, 4, 0, 0) // POSIX_FADV_DONTNEED
	memory, err := syscall.Mmap(int(f.Fd()), 0, 1<<20, syscall.PROT_READ, syscall.MAP_SHARED)
	must(t, err)
	defer syscall.Munmap(memory)
	const thread = 1 // RUSAGE_THREAD
	var before, after syscall.Rusage
	must(t, syscall.Getrusage(thread, &before))
	sum := 0
	for i := 0; i < len(memory); i += 4096 {
		sum += int(memory[i])
	}
	must(t, syscall.Getrusage(thread, &after))
	want(t, nil, sum, 0)
	if after.Majflt == before.Majflt {
		t.Skip("the file was in memory all the same")
	}
}

// A thread that has waited for the disk looks up through cgo for a while, so that Go's scheduler knows if it waits again.
func TestColdLookUpsAreNotDirect(t *testing.T) {
	m := withLanes(t, 10)
	waitForDisk(t)
	cold := func() (calls int) {
		for i := range m.lanes.lanes {
			calls += int(m.lanes.lanes[i].pace.cold)
		}
		return calls
	}
	for i := 0; cold() == 0; i++ {
		if i > 10_000 {
			t.Fatal("look-ups go on directly")
		}
		m.Has(1)
	}
	left := directCallsLeft(m)
	for cold() > 0 {
		expect(t, m, 0, 10)
		if directCallsLeft(m) < left {
			t.Fatal("a direct look-up")
		}
	}
}
