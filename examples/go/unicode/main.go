// unicode - reads the maps that examples/unicode/unicode.c has made: code point -> name, name -> code point.
//
//	go run ./unicode directory U+1F600 SNOWMAN        looks characters up
//	go run ./unicode directory                        checks that the two maps say the same, and measures
//	go run ./unicode directory watch                  tells each new name of U+E000, until it is gone again
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"opendiskmap.example/opendiskmap"
)

const private = 0xe000 // has no name of its own

func main() {
	if len(os.Args) < 2 {
		log.Fatal("usage: unicode directory [watch | character...]")
	}
	log.SetFlags(0)
	names, err := opendiskmap.Open(os.Args[1]+"/names", opendiskmap.U32, opendiskmap.Str, options)
	check(err)
	characters, err := opendiskmap.Open(os.Args[1]+"/characters", opendiskmap.Str, opendiskmap.U32, options)
	check(err)
	defer names.Close()
	defer characters.Close()
	switch {
	case len(os.Args) == 2:
		compare(names, characters)
	case os.Args[2] == "watch":
		watch(names)
	default:
		lookUp(names, characters, os.Args[2:])
	}
}

// Reading only: locks nothing, writes nothing, and still sees what others write now.
var options = &opendiskmap.Options{ReadOnly: true}

type (
	nameMap      = opendiskmap.Map[uint32, string]
	characterMap = opendiskmap.Map[string, uint32]
)

func lookUp(names *nameMap, characters *characterMap, arguments []string) {
	unknown := 0
	for _, argument := range arguments {
		code, ok := codeOf(characters, argument)
		name := ""
		if ok {
			var err error
			name, ok, err = names.Get(code)
			check(err)
		}
		if !ok {
			fmt.Printf("   no character: %s\n", argument)
			unknown++
			continue
		}
		fmt.Printf("   %c\tU+%04X   %s\n", rune(code), code, name)
	}
	if unknown > 0 {
		os.Exit(1)
	}
}

// codeOf is the code point that an argument means: U+2603, or a name.
func codeOf(characters *characterMap, argument string) (code uint32, ok bool) {
	if digits, found := strings.CutPrefix(argument, "U+"); found {
		code, err := strconv.ParseUint(digits, 16, 32)
		return uint32(code), err == nil
	}
	code, ok, err := characters.Get(strings.ToUpper(argument))
	check(err)
	return code, ok
}

// compare looks every name up in the other map. BELL, for one, is the name of two: the later one is found.
func compare(names *nameMap, characters *characterMap) {
	start := time.Now()
	entries, wrong := 0, 0
	walk := names.Walk(opendiskmap.Start)
	for code, name := range walk.All() {
		found, ok, err := characters.Get(name)
		check(err)
		if !ok || found < code {
			wrong++
		}
		entries++
	}
	check(walk.Err())
	took := time.Since(start)
	fmt.Printf("   %d names, each looked up in the other map: %d wrong, %d ns an entry\n", entries, wrong,
		took.Nanoseconds()/int64(max(entries, 1)))
	if wrong > 0 || entries == 0 {
		log.Fatal("the two maps do not say the same")
	}
}

// watch sees another process write: `unicode live` of examples/unicode.
func watch(names *nameMap) {
	fmt.Println("   Go is watching U+E000")
	last, seen := "", 0
	for start := time.Now(); time.Since(start) < 10*time.Second; {
		name, ok, err := names.Get(private)
		check(err)
		switch {
		case ok && name != last:
			last = name
			if seen++; seen == 1 {
				fmt.Printf("   Go has seen it appear: %s\n", name)
			}
		case !ok && seen > 0:
			fmt.Printf("   Go has seen %d names of it, the last one %q, and that it is gone\n", seen, last)
			return
		}
	}
	fmt.Println("   Go has seen nothing for 10 s")
}

func check(err error) {
	if errors.Is(err, opendiskmap.ErrNotFound) {
		log.Fatal("there are no maps yet: ", err)
	}
	if err != nil {
		log.Fatal(err)
	}
}
