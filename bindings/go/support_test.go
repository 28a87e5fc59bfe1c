package opendiskmap

// What several tests share.

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// directory is a fresh place for a map, on a file system that takes one: the writable layer of a container is none.
func directory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent(t), "odm_go.")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "map")
}

var parent = func() func(testing.TB) string {
	var once sync.Once
	var found string
	return func(t testing.TB) string {
		once.Do(func() {
			for _, dir := range []string{os.TempDir(), "/dev/shm"} {
				probe, err := os.MkdirTemp(dir, "odm_go.")
				if err != nil {
					continue
				}
				defer os.RemoveAll(probe)
				if m, err := Open(filepath.Join(probe, "map"), U64, U64, nil); err == nil {
					m.Close()
					found = dir
					return
				}
			}
		})
		if found == "" {
			t.Skip("no file system here takes a map")
		}
		return found
	}
}()

// fresh is a new map on disk, closed at the end of the test.
func fresh[K, V any](t testing.TB, key Codec[K], value Codec[V]) *Map[K, V] {
	t.Helper()
	return reopen(t, directory(t), key, value)
}

func reopen[K, V any](t testing.TB, path string, key Codec[K], value Codec[V]) *Map[K, V] {
	t.Helper()
	m, err := Open(path, key, value, nil)
	must(t, err)
	t.Cleanup(func() { must(t, m.Close()) })
	return m
}

// entries is a new map with n entries, k: "value k".
func entries(t *testing.T, n uint64) *Map[uint64, string] {
	t.Helper()
	m := fresh(t, U64, Str)
	for k := range n {
		must(t, m.Put(k, fmt.Sprint("value ", k)))
	}
	return m
}

// needDirectCalls skips a test where look-ups all go through cgo.
func needDirectCalls[K, V any](t *testing.T, m *Map[K, V]) {
	t.Helper()
	if m.lanes == nil {
		t.Skip("no direct calls here")
	}
}

// kindsWithoutLanes are keys and options of maps whose look-ups all go through cgo.
var kindsWithoutLanes = map[string]kindOfMap{
	"own codec": {JSON[string](), &Options{}},
	"read-only": {Str, &Options{ReadOnly: true}},
	"verify":    {Str, &Options{VerifyReads: true}},
}

type kindOfMap struct {
	key  Codec[string]
	opts *Options
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want compares what a call returned; its error must be nil.
func want[T comparable](t testing.TB, err error, have, expected T) {
	t.Helper()
	must(t, err)
	if have != expected {
		t.Fatalf("have %v, want %v", have, expected)
	}
}
