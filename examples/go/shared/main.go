// shared - two processes on one map: each reads at once what the other has just written.
//
//	go run ./shared [directory]
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"runtime"

	"opendiskmap.example/opendiskmap"
)

func main() {
	path := "shared.map"
	if len(os.Args) > 1 {
		path = os.Args[1]
	}
	m, err := opendiskmap.OpenStringU64(path, nil)
	check(err)
	defer m.Close()
	if len(os.Args) > 2 { // The child asks.
		for n := uint64(1); n <= 5; n++ {
			check(m.Put("question", n))
			waitFor(m, "answer", n*n)
		}
		return
	}
	check(m.Clear()) // Of an earlier run.
	child := exec.Command(os.Args[0], path, "child")
	check(child.Start())
	for n := uint64(1); n <= 5; n++ {
		waitFor(m, "question", n)
		check(m.Put("answer", n*n))
		fmt.Printf("the child asked %d, the parent put %d\n", n, n*n)
	}
	check(child.Wait())
}

func waitFor(m *opendiskmap.StringU64Map, key string, n uint64) {
	for {
		value, _, err := m.Get(key) // No lock, no system call.
		check(err)
		if value == n {
			return
		}
		runtime.Gosched()
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
