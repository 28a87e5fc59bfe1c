// batch - many keys in one call: puts, inserts and deletes mixed, then many gets at once.
//
//	go run ./batch [directory]
package main

import (
	"fmt"
	"log"
	"os"

	"opendiskmap.example/opendiskmap"
)

func main() {
	path := "fruit.map"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	fruit, err := opendiskmap.OpenStringString(path, nil)
	check(err)
	defer fruit.Close()

	batch := fruit.Batch()
	batch.Put("apple", "red")
	batch.Insert("pear", "yellow")
	batch.Delete("plum")
	batch.Put("peach", "round")
	check(batch.Write()) // In order; not atomic.
	for i := range batch.Done() {
		fmt.Printf("write %d: %v\n", i, batch.Outcome(i))
	}

	keys := []string{"apple", "pear", "plum", "peach"}
	values, ok := make([]string, len(keys)), make([]bool, len(keys))
	check(fruit.GetMany(keys, values, ok))
	for i := range keys {
		if !ok[i] {
			values[i] = "absent"
		}
		fmt.Printf("get %d: %s\n", i, values[i])
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
