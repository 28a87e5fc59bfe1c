// quickstart - put, get, insert if absent, delete. Run it twice: what the first run put is there.
//
//	go run ./quickstart [directory]
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"opendiskmap.example/opendiskmap"
)

func main() {
	path := "colours.map"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	colours, err := opendiskmap.OpenStringString(path, nil) // Makes the map if there is none.
	check(err)
	defer colours.Close()
	fmt.Println("entries found:", colours.Len())

	check(colours.Put("red", "#ff0000"))
	check(colours.Put("grey", "#808080"))
	red, _, err := colours.Get("red")
	check(err)
	fmt.Println("red is", red)

	inserted, err := colours.Insert("sky", "#87ceeb")
	check(err)
	fmt.Println("sky inserted:", inserted)
	_, err = colours.Delete("grey")
	check(err)
	_, ok, err := colours.Get("grey") // A key that is absent is no error.
	check(err)
	fmt.Println("grey after its removal:", ok)
	check(colours.Sync(context.Background())) // From here on all of it survives power loss, too.
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
