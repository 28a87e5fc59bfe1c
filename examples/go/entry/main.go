// entry - counts words, in a map that any number of these programs may count into at once.
//
//	go run ./entry [directory] < text
package main

import (
	"bufio"
	"fmt"
	"log"
	"os"

	"opendiskmap.example/opendiskmap"
)

func main() {
	path := "words.map"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	words, err := opendiskmap.OpenStringU64(path, nil)
	check(err)
	defer words.Close()
	input := bufio.NewScanner(os.Stdin)
	input.Split(bufio.ScanWords)
	for input.Scan() {
		entry, err := words.Entry(input.Text()) // The count now: 0 if the word is new.
		check(err)
		for {
			written, err := entry.Put(entry.Value() + 1) // Only if nobody else has counted meanwhile;
			check(err)
			if written {
				break
			}
			check(entry.Reload()) // else again. opendiskmap.Add does all this in one call.
		}
		fmt.Println(entry.Key(), entry.Value()+1)
	}
	check(input.Err())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
