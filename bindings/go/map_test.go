package opendiskmap

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestGetPutDelete(t *testing.T) {
	m := fresh(t, Str, U64)
	_, ok, err := m.Get("red")
	want(t, err, ok, false)
	must(t, m.Put("red", 1))
	must(t, m.Put("red", 2))
	v, ok, err := m.Get("red")
	want(t, err, ok, true)
	want(t, nil, v, 2)
	has, err := m.Has("red")
	want(t, err, has, true)
	has, err = m.Has("green")
	want(t, err, has, false)
	want(t, nil, m.Len(), 1)

	existed, err := m.Delete("red")
	want(t, err, existed, true)
	existed, err = m.Delete("red")
	want(t, err, existed, false)
	want(t, nil, m.Len(), 0)
}

func TestAMapIsThereWhenItIsOpenedAgain(t *testing.T) {
	path := directory(t)
	m, err := OpenU64String(path, nil)
	must(t, err)
	must(t, m.Put(7, "seven"))
	must(t, m.Close())
	m, err = OpenU64String(path, &Options{ReadOnly: true})
	must(t, err)
	defer m.Close()
	v, _, err := m.Get(7)
	want(t, err, v, "seven")
	schema, err := m.Schema()
	want(t, err, schema, "u64/str")
	if err := m.Put(8, ""); !errors.Is(err, ErrReadOnly) {
		t.Fatal(err)
	}
}

func TestInsertPutsOnlyWhatIsAbsent(t *testing.T) {
	m := fresh(t, Str, Str)
	inserted, err := m.Insert("a", "1")
	want(t, err, inserted, true)
	inserted, err = m.Insert("a", "2")
	want(t, err, inserted, false)
	v, _, err := m.Get("a")
	want(t, err, v, "1")
}

func TestGetOrPut(t *testing.T) {
	m := fresh(t, Str, Str)
	v, loaded, err := m.GetOrPut("a", "1")
	want(t, err, loaded, false)
	want(t, nil, v, "1")
	v, loaded, err = m.GetOrPut("a", "2")
	want(t, err, loaded, true)
	want(t, nil, v, "1")

	calls := 0
	count := func() (string, error) { calls++; return "3", nil }
	v, loaded, err = m.GetOrPutFunc("b", count)
	want(t, err, loaded, false)
	want(t, nil, v, "3")
	_, loaded, err = m.GetOrPutFunc("b", count)
	want(t, err, loaded, true)
	want(t, nil, calls, 1)

	mine := errors.New("mine")
	_, _, err = m.GetOrPutFunc("c", func() (string, error) { return "", mine })
	if !errors.Is(err, mine) {
		t.Fatal(err)
	}
	has, err := m.Has("c")
	want(t, err, has, false)

	// Somebody else is faster while the value is made.
	v, loaded, err = m.GetOrPutFunc("d", func() (string, error) { return "late", m.Put("d", "early") })
	want(t, err, loaded, true)
	want(t, nil, v, "early")
}

func TestUpdateIsCalledAgainWhenSomebodyElseWasFaster(t *testing.T) {
	m := fresh(t, Str, U64)
	must(t, m.Update("n", func(v uint64, ok bool) (uint64, bool) { return v + 1, !ok }))
	calls := 0
	must(t, m.Update("n", func(v uint64, ok bool) (uint64, bool) {
		if calls++; calls == 1 {
			must(t, m.Put("n", 10))
		}
		return v + 1, true
	}))
	v, _, err := m.Get("n")
	want(t, err, v, 11)
	want(t, nil, calls, 2)

	must(t, m.Update("n", func(uint64, bool) (uint64, bool) { return 0, false }))
	must(t, m.Update("n", func(_ uint64, ok bool) (uint64, bool) { return 0, ok }))
	has, err := m.Has("n")
	want(t, err, has, false)
}

func TestCompareAndSwap(t *testing.T) {
	m := fresh(t, Str, JSON[[]int]())
	swapped, err := m.CompareAndSwap("a", nil, []int{1})
	want(t, err, swapped, false)
	must(t, m.Put("a", []int{1}))
	swapped, err = m.CompareAndSwap("a", []int{2}, []int{3})
	want(t, err, swapped, false)
	swapped, err = m.CompareAndSwap("a", []int{1}, []int{4, 5})
	want(t, err, swapped, true)
	v, _, err := m.Get("a")
	must(t, err)
	if !slices.Equal(v, []int{4, 5}) {
		t.Fatal(v)
	}
}

// watched is Str, and tells of every value that it encodes.
type watched struct {
	Codec[string]
	encoding func(value string)
}

func (c watched) Name() string { return "watched" }

func (c watched) Append(dst []byte, value string) ([]byte, error) {
	c.encoding(value)
	return c.Codec.Append(dst, value)
}

func TestCompareAndSwapLooksAgainIfSomebodyPutTheSameValue(t *testing.T) {
	var m *Map[string, string]
	others := 0 // values that somebody else puts between the look at the value and the write
	m = fresh(t, Str, watched{Str, func(value string) {
		if value == "next" && others > 0 {
			others--
			must(t, m.Put("key", "old"))
		}
	}})
	must(t, m.Put("key", "old"))
	others = 3
	swapped, err := m.CompareAndSwap("key", "old", "next")
	want(t, err, swapped, true)
	want(t, nil, others, 0)
	value, _, err := m.Get("key")
	want(t, err, value, "next")
}

func TestAdd(t *testing.T) {
	m := fresh(t, Str, I16)
	sum, err := Add(m, "n", 32767)
	want(t, err, sum, 32767)
	sum, err = Add(m, "n", 1) // Integers wrap around.
	want(t, err, sum, -32768)
	f := fresh(t, U8, F64)
	_, err = Add(f, 1, 0.5)
	must(t, err)
	x, err := Add(f, 1, -0.75)
	want(t, err, x, -0.25)
}

func TestEntry(t *testing.T) {
	m := fresh(t, Str, U64)
	e, err := m.Entry("a")
	want(t, err, e.Occupied(), false)
	removed, err := e.Delete()
	want(t, err, removed, false)
	must(t, e.AndModify(func(uint64) uint64 { t.Error("there is nothing to modify"); return 0 }))
	v, err := e.OrPut(5)
	want(t, err, v, 5)
	want(t, nil, e.Occupied(), true)
	v, err = e.OrPut(6)
	want(t, err, v, 5)
	must(t, e.AndModify(func(v uint64) uint64 { return v * 10 }))
	want(t, nil, e.Value(), 50)

	must(t, m.Put("a", 1))
	written, err := e.Put(2)
	want(t, err, written, false)
	removed, err = e.Delete()
	want(t, err, removed, false)
	must(t, e.Reload())
	want(t, nil, e.Value(), 1)
	written, err = e.Put(2)
	want(t, err, written, true)
	must(t, e.Reload())
	removed, err = e.Delete()
	want(t, err, removed, true)
	want(t, nil, m.Len(), 0)

	late, err := m.Entry("a")
	must(t, err)
	must(t, m.Put("a", 9))
	v, err = late.OrPut(1)
	want(t, err, v, 9)
	want(t, nil, e.Key(), "a")
}

func TestViewIsTheMapItself(t *testing.T) {
	m := fresh(t, Str, Str)
	must(t, m.Put("a", "before"))
	ok, err := m.View("a", func(value []byte) error {
		// Neither an overwrite, nor a removal, nor a Close ends it before its function does.
		must(t, m.Put("a", "after"))
		for i := range 1000 {
			must(t, m.Put(fmt.Sprint(i), strings.Repeat("x", 1000)))
		}
		_, err := m.Delete("a")
		must(t, err)
		want(t, nil, string(value), "before")
		return nil
	})
	want(t, err, ok, true)
	ok, err = m.View("a", func([]byte) error { t.Error("there is no a"); return nil })
	want(t, err, ok, false)
	mine := errors.New("mine")
	if _, err = m.View("1", func([]byte) error { return mine }); err != mine {
		t.Fatal(err)
	}
	ok, err = m.View("1", func(value []byte) error {
		must(t, m.Close())
		want(t, nil, string(value), strings.Repeat("x", 1000))
		return nil
	})
	want(t, err, ok, true)
	if _, err = m.View("1", func([]byte) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestGetManyAnswersAsGetDoes(t *testing.T) {
	m := fresh(t, U32, Str)
	const n = 3*manyMax + 7
	keys, values, ok := make([]uint32, n), make([]string, n), make([]bool, n)
	for i := range keys {
		keys[i] = uint32(i)
		values[i] = "old"
		if i%3 != 0 {
			must(t, m.Put(keys[i], strings.Repeat("v", i%50)))
		}
	}
	must(t, m.GetMany(keys, values, ok))
	for i, key := range keys {
		v, there, err := m.Get(key)
		want(t, err, ok[i], there)
		want(t, nil, values[i], v)
	}
	must(t, m.GetMany(nil, nil, nil))
	if err := m.GetMany(keys, values, ok[1:]); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
}

func TestBatchTellsWhatBecameOfEachWrite(t *testing.T) {
	m := fresh(t, Str, Str)
	must(t, m.Put("a", "old"))
	b := m.Batch()
	must(t, b.Write())
	b.Put("a", "new")
	b.Insert("a", "never")
	b.Insert("b", "1")
	b.Delete("c")
	b.Delete("b")
	b.Put("d", "")
	must(t, b.Write())
	want(t, nil, b.Done(), 6)
	want(t, nil, b.Len(), 6)
	for i, outcome := range []Code{OK, ErrExists, OK, ErrNotFound, OK, OK} {
		want(t, nil, b.Outcome(i), outcome)
	}
	have := maps.Collect(m.All(new(error)))
	if !maps.Equal(have, map[string]string{"a": "new", "d": ""}) {
		t.Fatal(have)
	}

	b.Reset()
	b.Put("e", "1")
	b.Put(strings.Repeat("k", 1<<24), "the key is too big")
	if err := b.Write(); !errors.Is(err, ErrTooBig) || b.Done() != 0 {
		t.Fatal(err, b.Done())
	}
	has, err := m.Has("e")
	want(t, err, has, false)

	must(t, m.PutMany([]string{"x", "y"}, []string{"1", "2"}))
	v, _, err := m.Get("y")
	want(t, err, v, "2")
	if err := m.PutMany([]string{"x"}, nil); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
}

func TestAWriteThatCanNotBeEncodedWritesNothing(t *testing.T) {
	m := fresh(t, Str, JSON[any]())
	bad := make(chan int)
	if err := m.Put("a", bad); !errors.Is(err, ErrEncoding) {
		t.Fatal(err)
	}
	b := m.Batch()
	b.Put("b", 1)
	b.Put("c", bad)
	if err := b.Write(); !errors.Is(err, ErrEncoding) {
		t.Fatal(err)
	}
	want(t, nil, m.Len(), 0)
}

func TestEmptyKeysAndValues(t *testing.T) {
	m := fresh(t, Bytes, Bytes)
	must(t, m.Put(nil, nil))
	v, ok, err := m.Get([]byte{})
	want(t, err, ok, true)
	if v == nil || len(v) != 0 {
		t.Fatalf("%#v", v)
	}
	existed, err := m.Delete(nil)
	want(t, err, existed, true)
}

func TestInMemory(t *testing.T) {
	m, err := OpenMemory(U64, Str, nil)
	must(t, err)
	defer m.Close()
	must(t, m.Put(1, "one"))
	must(t, m.Sync(t.Context()))
	want(t, nil, m.Path(), "")
	v, _, err := m.Get(1)
	want(t, err, v, "one")
	if _, err := OpenMemory(U64, Str, &Options{ReadOnly: true}); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
}

func TestClearLenCapStat(t *testing.T) {
	m := fresh(t, U64, U64)
	for i := range uint64(1000) {
		must(t, m.Put(i, i))
	}
	stat, err := m.Stat()
	must(t, err)
	want(t, nil, stat.Count, 1000)
	want(t, nil, stat.Stripes, 16)
	want(t, nil, m.Len(), 1000)
	if m.Cap() < 1000 || m.LoadFactor() <= 0 || m.LoadFactor() > 1 || stat.MapID == [16]byte{} || stat.LiveBytes < 40000 {
		t.Fatal(m.Cap(), m.LoadFactor(), stat)
	}
	must(t, m.Clear())
	want(t, nil, m.Len(), 0)
	has, err := m.Has(1)
	want(t, err, has, false)
}

// Random operations, on the map and on a map of Go; from time to time all entries are compared.
func TestBehavesLikeABuiltInMap(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Log("seed ", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	path := directory(t)
	m := reopen(t, path, Str, Str)
	model := map[string]string{}
	for step := range 20000 {
		key := strings.Repeat("k", random.IntN(20)) + fmt.Sprint(random.IntN(200))
		value := strings.Repeat("v", random.IntN(300))
		old, there := model[key]
		switch random.IntN(8) {
		case 0, 1:
			must(t, m.Put(key, value))
			model[key] = value
		case 2:
			existed, err := m.Delete(key)
			want(t, err, existed, there)
			delete(model, key)
		case 3:
			inserted, err := m.Insert(key, value)
			want(t, err, inserted, !there)
			if !there {
				model[key] = value
			}
		case 4:
			must(t, m.Update(key, func(v string, ok bool) (string, bool) {
				want(t, nil, ok, there)
				want(t, nil, v, old)
				return v + "!", len(v) < 300
			}))
			if model[key] = old + "!"; len(old) >= 300 {
				delete(model, key)
			}
		case 5:
			swapped, err := m.CompareAndSwap(key, old, value)
			want(t, err, swapped, there)
			if there {
				model[key] = value
			}
		default:
			v, ok, err := m.Get(key)
			want(t, err, ok, there)
			want(t, nil, v, old)
		}
		if step%5000 == 4999 {
			var err error
			have := maps.Collect(m.All(&err))
			must(t, err)
			if !maps.Equal(have, model) {
				t.Fatalf("step %d: %d entries, want %d", step, len(have), len(model))
			}
			want(t, nil, m.Len(), len(model))
			must(t, m.Close())
			m = reopen(t, path, Str, Str)
		}
	}
}

func TestErrorsSayWhatWhereAndWhy(t *testing.T) {
	path := directory(t)
	_, err := OpenU64String(path, &Options{MustExist: true})
	var e *Error
	if !errors.Is(err, ErrNotFound) || !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &e) || e.Op != "open" || e.Path != path {
		t.Fatalf("%v %#v", err, e)
	}
	m, err := OpenU64String(path, &Options{Stripes: 4, FileMode: 0o600, Wait: time.Second, Capacity: 100, CapacityBytes: 1000})
	must(t, err)
	stat, err := m.Stat()
	want(t, err, stat.Stripes, 4)
	info, err := os.Stat(filepath.Join(path, "meta"))
	want(t, err, info.Mode().Perm(), 0o600)
	must(t, m.Close())
	must(t, m.Close())

	_, err = OpenU64String(path, &Options{MustCreate: true})
	if !errors.Is(err, ErrExists) || !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	_, err = OpenStringU64(path, nil)
	if !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "u64/str") || !strings.Contains(err.Error(), "str/u64") {
		t.Fatal(err)
	}
	_, err = OpenStringU64(filepath.Join(path, "meta"), nil)
	if !errors.As(err, &e) || e.Code >= 0 {
		t.Fatal(err)
	}
	_, err = OpenStringU64("/proc/no/such/place", nil)
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &e) || e.Errno == 0 || e.Code != ErrIO {
		t.Fatalf("%v %#v", err, e)
	}
	for _, o := range []Options{{Stripes: 3}, {Stripes: -1}, {Stripes: 1 << 33}, {FileMode: fs.ModeDir}, {MustCreate: true, ReadOnly: true}} {
		if _, err := OpenStringU64(path, &o); !errors.Is(err, ErrInvalid) {
			t.Fatal(o, err)
		}
	}
	if _, err := OpenStringU64("a\x00b", nil); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
	if _, err := Open[int, string](path, nil, Str, nil); !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
}

func TestEveryCallOnAClosedMapSaysSo(t *testing.T) {
	m := fresh(t, Str, U64)
	e, err := m.Entry("a")
	must(t, err)
	walk := m.Walk(Start)
	must(t, m.Close())
	calls := map[string]func() error{
		"get":    func() error { _, _, err := m.Get("a"); return err },
		"has":    func() error { _, err := m.Has("a"); return err },
		"put":    func() error { return m.Put("a", 1) },
		"insert": func() error { _, err := m.Insert("a", 1); return err },
		"delete": func() error { _, err := m.Delete("a"); return err },
		"view":   func() error { _, err := m.View("a", func([]byte) error { return nil }); return err },
		"read":   func() error { return m.Read(func(*Reader[string, uint64]) error { return nil }) },
		"many":   func() error { return m.GetMany([]string{"a"}, []uint64{0}, []bool{false}) },
		"batch":  func() error { return m.PutMany([]string{"a"}, []uint64{0}) },
		"add":    func() error { _, err := Add(m, "a", 1); return err },
		"cas":    func() error { _, err := m.CompareAndSwap("a", 1, 2); return err },
		"entry":  func() error { _, err := e.OrPut(1); return err },
		"clear":  func() error { return m.Clear() },
		"stat":   func() error { _, err := m.Stat(); return err },
		"schema": func() error { _, err := m.Schema(); return err },
		"sync":   func() error { return m.Sync(t.Context()) },
		"verify": func() error { _, err := m.Verify(t.Context(), nil); return err },
		"walk": func() error {
			for range walk.Keys() {
				t.Error("there is nothing to visit")
			}
			return walk.Err()
		},
	}
	for name, call := range calls {
		if err := call(); !errors.Is(err, ErrClosed) || !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	want(t, nil, m.Len()+m.Cap(), 0)
	want(t, nil, m.LoadFactor(), 0)
}

func TestCodesAreThoseOfC(t *testing.T) {
	names := map[Code]string{
		OK: "ODM_OK", ErrNotFound: "ODM_NOT_FOUND", ErrExists: "ODM_EXISTS", done: "ODM_DONE", conflict: "ODM_CONFLICT",
		wouldBlock: "ODM_WOULD_BLOCK",
		ErrInvalid: "ODM_E_INVALID", ErrIO: "ODM_E_IO", ErrNoSpace: "ODM_E_NO_SPACE", ErrNoMemory: "ODM_E_NO_MEMORY",
		ErrCorrupt: "ODM_E_CORRUPT", ErrVersion: "ODM_E_VERSION", ErrReadOnly: "ODM_E_READ_ONLY", ErrTooBig: "ODM_E_TOO_BIG",
		ErrMismatch: "ODM_E_MISMATCH", ErrBusy: "ODM_E_BUSY", ErrUnsupported: "ODM_E_UNSUPPORTED",
		ErrClosed: "ErrClosed", ErrEncoding: "ErrEncoding",
	}
	for code, name := range names {
		want(t, nil, code.Name(), name)
		if code.Error() == "" || strings.HasPrefix(code.Error(), "unknown") {
			t.Fatal(code)
		}
	}
}
