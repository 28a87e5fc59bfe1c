package opendiskmap

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestMain runs the tests, or one of the helpers that tests start as other processes.
func TestMain(m *testing.M) {
	if helper := os.Getenv("OPENDISKMAP_TEST_HELPER"); helper != "" {
		if err := helpers[helper](os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var helpers = map[string]func(path string) error{
	"count": func(path string) error {
		m, err := OpenStringU64(path, nil)
		if err != nil {
			return err
		}
		return countBySeveral(m)
	},
	"echo": func(path string) error {
		m, err := OpenStringU64(path, nil)
		for n := uint64(1); err == nil && n <= 100; n++ {
			if err = waitFor(m, "question", n); err == nil {
				err = m.Put("answer", n*n)
			}
		}
		return err
	},
}

func helper(t *testing.T, name, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], path)
	cmd.Env = append(os.Environ(), "OPENDISKMAP_TEST_HELPER="+name)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	return cmd
}

func waitFor(m *StringU64Map, key string, n uint64) error {
	for {
		v, _, err := m.Get(key)
		if err != nil || v == n {
			return err
		}
		runtime.Gosched()
	}
}

func spawn(group *sync.WaitGroup, call func()) {
	group.Add(1)
	go func() {
		defer group.Done()
		call()
	}()
}

const (
	counters  = 4 // goroutines
	countEach = 500
)

// countBySeveral counts to counters * countEach, by goroutines that get into each other's way.
func countBySeveral(m *StringU64Map) error {
	errs := make(chan error)
	for range counters {
		go func() {
			var err error
			for i := 0; i < countEach && err == nil; i++ {
				_, err = Add(m, "n", 1)
			}
			errs <- err
		}()
	}
	var all []error
	for range counters {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func TestGoroutinesAndProcessesCountTogether(t *testing.T) {
	path := directory(t)
	m := reopen(t, path, Str, U64)
	others := []*exec.Cmd{helper(t, "count", path), helper(t, "count", path)}
	must(t, countBySeveral(m))
	for _, other := range others {
		must(t, other.Wait())
	}
	n, _, err := m.Get("n")
	want(t, err, n, 3*counters*countEach)
}

func TestAnotherProcessSeesAPutAtOnce(t *testing.T) {
	path := directory(t)
	m := reopen(t, path, Str, U64)
	other := helper(t, "echo", path)
	for n := uint64(1); n <= 100; n++ {
		must(t, m.Put("question", n))
		must(t, waitFor(m, "answer", n*n))
	}
	must(t, other.Wait())
}

// Every goroutine has keys of its own, whose values it knows, and reads those of the others.
func TestGoroutinesShareOneMap(t *testing.T) {
	m := fresh(t, U64, Str)
	const goroutines, keys, rounds = 8, 50, 40
	var group sync.WaitGroup
	for g := range uint64(goroutines) {
		spawn(&group, func() {
			for round := range rounds {
				for k := range uint64(keys) {
					value := strings.Repeat(fmt.Sprintf("%d.%d.%d ", g, k, round), 1+round%5)
					if err := m.Put(g*keys+k, value); err != nil {
						t.Error(err)
						return
					}
					v, ok, err := m.Get(g*keys + k)
					if err != nil || !ok || v != value {
						t.Errorf("have %q %v %v, want %q", v, ok, err, value)
						return
					}
					other := (g + 1) % goroutines
					_, err = m.View(other*keys+k, func(value []byte) error {
						if !strings.HasPrefix(string(value), fmt.Sprintf("%d.%d.", other, k)) {
							return fmt.Errorf("somebody else's value: %q", value)
						}
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				}
				n := 0
				walk := m.Walk(Start)
				for range walk.All() {
					n++
				}
				if walk.Err() != nil || n < keys {
					t.Error(walk.Err(), n)
				}
			}
		})
	}
	group.Wait()
	want(t, nil, m.Len(), goroutines*keys)
}

// More calls at a time than there are handles: views inside views.
func TestAnyNumberOfCallsAtATime(t *testing.T) {
	m := fresh(t, U64, U64)
	must(t, m.Put(1, 1))
	var nest func(depth int) error
	nest = func(depth int) error {
		if depth == 0 {
			return m.Put(2, 2)
		}
		_, err := m.View(1, func([]byte) error { return nest(depth - 1) })
		return err
	}
	must(t, nest(handlesMax+10))
	has, err := m.Has(2)
	want(t, err, has, true)
}

func TestCloseWhileCallsRun(t *testing.T) {
	for range 20 {
		path := directory(t)
		m, err := Open(path, U64, Str, nil)
		must(t, err)
		var begun, group sync.WaitGroup
		var puts atomic.Uint64
		begun.Add(4)
		for g := range uint64(4) {
			spawn(&group, func() {
				for i := g; ; i += 4 {
					err := m.Put(i, "value")
					if err == nil {
						puts.Add(1)
						_, _, err = m.Get(i)
					}
					if i%100 == g {
						walk := m.Walk(Start)
						for range walk.Keys() {
						}
						err = errors.Join(err, walk.Err())
					}
					if i == g {
						begun.Done()
					}
					if err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		begun.Wait()
		must(t, m.Close())
		group.Wait()
		for i := range m.store.handles {
			want(t, nil, m.store.handles[i].state.Load(), shut)
		}
		m = reopen(t, path, U64, Str)
		want(t, nil, m.Len(), int(puts.Load()))
	}
}

// mappings is the number of this process's mappings of a map's files.
func mappings(t *testing.T, path string) int {
	text, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	return strings.Count(string(text), path)
}

func TestAForgottenMapIsClosed(t *testing.T) {
	path := directory(t)
	func() {
		m, err := Open(path, U64, U64, nil)
		must(t, err)
		must(t, m.Put(1, 1))
	}()
	if mappings(t, path) == 0 {
		t.Fatal("the map is not mapped")
	}
	for mappings(t, path) != 0 { // If it is never closed, the test runner's own limit ends this.
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
}

// Idle handles and lanes keep the log files in which lies what they gave out last, until those who call have them let go.
func TestIdleHandlesPinNothingForLong(t *testing.T) {
	gets := func(t *testing.T, m *Map[uint64, string]) {
		for range 4 * sweepEvery {
			_, _, err := m.Get(1)
			must(t, err)
		}
	}
	aRead := func(t *testing.T, m *Map[uint64, string]) {
		must(t, m.Read(func(r *Reader[uint64, string]) error {
			for range sweepEvery {
				_, err := r.Has(1)
				must(t, err)
			}
			return nil
		}))
	}
	for name, c := range map[string]struct {
		look func(m *Map[uint64, string])               // what pins
		call func(t *testing.T, m *Map[uint64, string]) // what has it let go
	}{
		"a lane": {func(m *Map[uint64, string]) {
			runtime.LockOSThread() // Of a thread that is busy with something else from then on.
			for k := range uint64(500) {
				m.Has(k)
			}
		}, gets},
		"a Reader's handle": {func(m *Map[uint64, string]) {
			m.Read(func(*Reader[uint64, string]) error { // The first handle is taken.
				return m.Read(func(r *Reader[uint64, string]) error {
					for k := range uint64(500) {
						r.Slice(k)
					}
					return nil
				})
			})
		}, aRead},
		"a handle": {func(m *Map[uint64, string]) {
			m.View(1, func([]byte) error { // The lane is taken,
				m.View(2, func([]byte) error { // so is the first handle,
					for k := range uint64(500) { // and this is the second, that is idle from then on.
						m.Has(k)
					}
					return nil
				})
				return nil
			})
		}, gets},
	} {
		t.Run(name, func(t *testing.T) {
			m := overwritten(t)
			looked, done := make(chan bool), make(chan bool)
			defer close(done)
			go func() { c.look(m); looked <- true; <-done }()
			<-looked
			for k := range uint64(500) {
				must(t, m.Put(k, strings.Repeat("w", 200)))
			}
			supported(t, m.Compact(t.Context(), nil))
			pinned := func() uint64 {
				stat, err := m.Stat()
				must(t, err)
				return stat.UnlinkedBytes
			}
			before := pinned()
			c.call(t, m)
			// What the engine itself keeps mapped, a few small files, is not ours to end.
			if after := pinned(); before < 1<<18 || after > before/4 {
				t.Fatalf("unlinked bytes that are still mapped: %d, then %d", before, after)
			}
		})
	}
}

func TestAContextThatIsDone(t *testing.T) {
	m := fresh(t, U64, U64)
	ctx, cancel := context.WithCancel(t.Context())
	must(t, m.Sync(ctx))
	cancel()
	if err := m.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := m.Compact(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
