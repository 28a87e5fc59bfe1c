// walk - walks over a map, deletes entries during the walk, stops, and goes on from there.
//
//	go run ./walk [directory]
package main

import (
	"fmt"
	"log"
	"os"

	"opendiskmap.example/opendiskmap"
)

const count = 10000

func main() {
	path := "numbers.map"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	numbers, err := opendiskmap.Open(path, opendiskmap.U32, opendiskmap.Bytes, nil)
	check(err)
	defer numbers.Close()
	for n := range uint32(count) {
		check(numbers.Put(n, nil))
	}
	seen := map[uint32]bool{}
	position := opendiskmap.Start
	for _, limit := range []int{count / 3, 2 * count} { // The second walk goes on where the first was left.
		walk := numbers.Walk(position)
		for n := range walk.Keys() {
			seen[n] = true
			if n%2 == 1 {
				_, err := numbers.Delete(n)
				check(err)
			}
			if limit--; limit == 0 {
				break
			}
		}
		check(walk.Err())
		position = walk.Position() // Any process may go on from it.
	}
	fmt.Printf("missed: %d, left: %d\n", count-len(seen), numbers.Len())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
