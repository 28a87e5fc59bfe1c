// Examples of the package documentation, whose output is checked.
package opendiskmap_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"slices"

	"opendiskmap.example/opendiskmap"
)

// temporary is a place for a map of an example.
func temporary() (path string, remove func()) {
	dir, err := os.MkdirTemp(parent(), "odm_example.")
	check(err)
	return dir + "/map", func() { os.RemoveAll(dir) }
}

// parent is where maps can be made: not on the writable layer of a container.
func parent() string {
	m, err := opendiskmap.OpenU64String(os.TempDir()+"/odm_example_probe", nil)
	if errors.Is(err, opendiskmap.ErrUnsupported) {
		return "/dev/shm"
	}
	check(err)
	m.Close()
	os.RemoveAll(os.TempDir() + "/odm_example_probe")
	return os.TempDir()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func ExampleOpen() {
	path, remove := temporary()
	defer remove()

	ages, err := opendiskmap.Open(path, opendiskmap.Str, opendiskmap.U8, nil)
	check(err)
	check(ages.Put("Ada", 36))
	check(ages.Close())

	ages, err = opendiskmap.Open(path, opendiskmap.Str, opendiskmap.U8, &opendiskmap.Options{ReadOnly: true})
	check(err)
	defer ages.Close()
	age, ok, err := ages.Get("Ada")
	fmt.Println(age, ok, err)
	age, ok, err = ages.Get("Bob")
	fmt.Println(age, ok, err)

	_, err = opendiskmap.Open(path, opendiskmap.Str, opendiskmap.Str, nil)
	fmt.Println(errors.Is(err, opendiskmap.ErrMismatch))
	// Output:
	// 36 true <nil>
	// 0 false <nil>
	// true
}

func ExampleMap_Update() {
	m, err := opendiskmap.OpenMemory(opendiskmap.Str, opendiskmap.JSON[[]string](), nil)
	check(err)
	defer m.Close()
	for _, tag := range []string{"new", "red", "new"} {
		check(m.Update("apple", func(tags []string, ok bool) ([]string, bool) {
			if !slices.Contains(tags, tag) {
				tags = append(tags, tag)
			}
			return tags, true
		}))
	}
	tags, _, err := m.Get("apple")
	fmt.Println(tags, err)
	// Output: [new red] <nil>
}

func ExampleAdd() {
	visits, err := opendiskmap.OpenMemory(opendiskmap.Str, opendiskmap.I64, nil)
	check(err)
	defer visits.Close()
	done := make(chan error)
	for range 4 {
		go func() {
			_, err := opendiskmap.Add(visits, "home", 10)
			done <- err
		}()
	}
	for range 4 {
		check(<-done)
	}
	n, _, err := visits.Get("home")
	fmt.Println(n, err)
	// Output: 40 <nil>
}

func ExampleMap_GetOrPutFunc() {
	m, err := opendiskmap.OpenMemory(opendiskmap.U64, opendiskmap.Str, nil)
	check(err)
	defer m.Close()
	for range 2 {
		value, loaded, err := m.GetOrPutFunc(7, func() (string, error) { return "made once", nil })
		fmt.Println(value, loaded, err)
	}
	// Output:
	// made once false <nil>
	// made once true <nil>
}

func ExampleMap_Entry() {
	m, err := opendiskmap.OpenMemory(opendiskmap.Str, opendiskmap.U32, nil)
	check(err)
	defer m.Close()
	entry, err := m.Entry("stock")
	check(err)
	check(m.Put("stock", 5)) // Somebody else.
	written, err := entry.Put(1)
	fmt.Println(written, err)
	check(entry.Reload())
	written, err = entry.Put(entry.Value() - 1)
	fmt.Println(written, err, entry.Value())
	// Output:
	// false <nil>
	// true <nil> 5
}

func ExampleMap_Read() {
	path, remove := temporary()
	defer remove()
	words, err := opendiskmap.OpenStringString(path, nil)
	check(err)
	defer words.Close()
	check(words.PutMany([]string{"a", "b", "c"}, []string{"alpha", "beta", "gamma"}))

	total := 0
	check(words.Read(func(r *opendiskmap.Reader[string, string]) error {
		for _, key := range []string{"a", "x", "c"} {
			value, ok, err := r.Slice(key) // The bytes in the map itself, until this function returns.
			if err != nil {
				return err
			}
			if ok {
				total += len(value)
			}
		}
		return nil
	}))
	fmt.Println(total)
	// Output: 10
}

func ExampleMap_Walk() {
	m, err := opendiskmap.OpenMemory(opendiskmap.U32, opendiskmap.Str, nil)
	check(err)
	defer m.Close()
	check(m.PutMany([]uint32{1, 2, 3}, []string{"one", "two", "three"}))
	var names []string
	walk := m.Walk(opendiskmap.Start)
	for key, name := range walk.All() {
		names = append(names, fmt.Sprint(key, " ", name))
	}
	check(walk.Err())
	slices.Sort(names) // They come in no meaningful order.
	fmt.Println(names)
	// Output: [1 one 2 two 3 three]
}

func ExampleMap_Batch() {
	m, err := opendiskmap.OpenMemory(opendiskmap.Str, opendiskmap.Str, nil)
	check(err)
	defer m.Close()
	batch := m.Batch()
	batch.Insert("a", "1")
	batch.Insert("a", "2")
	batch.Delete("b")
	check(batch.Write())
	for i := range batch.Done() {
		fmt.Println(batch.Outcome(i))
	}
	// Output:
	// ok
	// the key is in the map already
	// the key is not in the map
}

// City is a value whose fields are read in place.
type City struct {
	People uint64    `odm:"people"`
	Name   string    `odm:"name"`
	Heat   []float32 `odm:"heat"` // by month
}

func ExampleStruct() {
	codec := opendiskmap.Struct[City]()
	name, heat := opendiskmap.FieldOf[string](codec, "name"), opendiskmap.FieldOf[[]float32](codec, "heat")
	cities, err := opendiskmap.OpenMemory(opendiskmap.U32, codec, nil)
	check(err)
	defer cities.Close()
	check(cities.Put(1, City{2750000, "Roma", []float32{8, 9, 11.5}}))

	schema, err := cities.Schema()
	fmt.Println(schema, err)
	ok, err := cities.View(1, func(value []byte) error {
		n, err := name.Read(value)
		check(err)
		h, err := heat.Read(value) // Not copied: it lies in the map.
		fmt.Println(n, h[2])
		return err
	})
	fmt.Println(ok, err)
	// Output:
	// u32/struct{people:u64,name:str,heat:[f32]} <nil>
	// Roma 11.5
	// true <nil>
}

func ExampleMap_Sync() {
	path, remove := temporary()
	defer remove()
	m, err := opendiskmap.OpenStringString(path, nil)
	check(err)
	defer m.Close()
	check(m.Put("account", "100"))
	fmt.Println(m.Sync(context.Background())) // From here on it survives power loss.
	// Output: <nil>
}
