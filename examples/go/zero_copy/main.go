// zero_copy - a struct stored as a value, its fields read where they lie, while it is overwritten.
//
//	go run ./zero_copy [directory]
package main

import (
	"fmt"
	"log"
	"os"

	"opendiskmap.example/opendiskmap"
)

// City is stored as the C struct of examples/c/zero_copy.c: the two programs can share a map.
type City struct {
	Latitude  float64 `odm:"latitude"`
	Longitude float64 `odm:"longitude"`
	People    uint64  `odm:"people"`
}

func main() {
	path := "cities.map"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	codec := opendiskmap.Struct[City]()
	people := opendiskmap.FieldOf[uint64](codec, "people") // Reads this field, and decodes nothing else.
	cities, err := opendiskmap.Open(path, opendiskmap.Str, codec, nil)
	check(err)
	defer cities.Close()

	check(cities.Put("Rome", City{41.9, 12.5, 2750000}))
	_, err = cities.View("Rome", func(then []byte) error { // The bytes in the map itself,
		check(cities.Put("Rome", City{41.9, 12.5, 2750001}))
		_, err := cities.View("Rome", func(now []byte) error {
			before, err := people.Read(then) // which stay as they are until this function returns.
			check(err)
			after, err := people.Read(now)
			check(err)
			fmt.Printf("then %d, now %d people\n", before, after)
			return nil
		})
		return err
	})
	check(err)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
