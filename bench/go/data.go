package main

import (
	"log"
	"math/rand/v2"
	"strings"
	"syscall"
	"unsafe"
)

// The workload "seed" of bench/README.md: random letters and digits, keys of 1 to 25 bytes, values of 1 to 250. Keys lie in
// memory in the order in which they are used, so that the benchmark's own cache misses are not measured; and outside of
// Go's heap, so that the garbage collector, which runs because of the strings that engines return, does not spend its time
// on them.
type data struct {
	keys, values []string
	order        []string // the keys, in another order
	absent       []string // as many that are not there
	sum          sum
}

// A sum is what was read: of every value its first and last byte, so that the memory was really there.
type sum uint64

func touch[B string | []byte](value B) sum { return sum(value[0]) + sum(value[len(value)-1]) }

const (
	alphabet     = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	keySizeMax   = 25
	valueSizeMax = 250
)

func makeData(n int) *data {
	random := rand.New(rand.NewPCG(1, 2))
	text := func(size int) string {
		bytes := make([]byte, size)
		for i := range bytes {
			bytes[i] = alphabet[random.IntN(len(alphabet))]
		}
		return string(bytes)
	}
	pool := outside(text(1 << 19)) // Values are slices of it: whoever puts one has just made it.
	seen := make(map[string]bool, 2*n)
	draw := func() []string {
		keys := make([]string, n)
		for i := range keys {
			for keys[i] == "" || seen[keys[i]] {
				keys[i] = text(1 + random.IntN(keySizeMax))
			}
			seen[keys[i]] = true
		}
		return packed(keys)
	}
	d := &data{keys: draw(), absent: draw(), values: stringsOutside(n)}
	for i := range d.values {
		at := random.IntN(len(pool) - valueSizeMax)
		d.values[i] = pool[at : at+1+random.IntN(valueSizeMax)]
		d.sum += touch(d.values[i])
	}
	order := make([]string, n)
	for i, j := range random.Perm(n) {
		order[i] = d.keys[j]
	}
	d.order = packed(order)
	return d
}

// packed copies keys so that they lie side by side.
func packed(keys []string) []string {
	all := outside(strings.Join(keys, ""))
	copies := stringsOutside(len(keys))
	at := 0
	for i, key := range keys {
		copies[i] = all[at : at+len(key)]
		at += len(key)
	}
	return copies
}

// outside copies a text to memory that Go does not manage; it stays until the process ends.
func outside(text string) string {
	memory := memoryOutside(len(text))
	copy(memory, text)
	return unsafe.String(&memory[0], len(text))
}

// stringsOutside is room for strings whose texts are outside, too.
func stringsOutside(n int) []string {
	return unsafe.Slice((*string)(unsafe.Pointer(&memoryOutside(n * int(unsafe.Sizeof("")))[0])), n)
}

func memoryOutside(size int) []byte {
	memory, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	check(err)
	return memory
}

func (d *data) check(have sum) {
	if have != d.sum {
		log.Fatalf("wrong answers: sum %d, not %d", have, d.sum)
	}
}

func (d *data) none(have sum) {
	if have != 0 {
		log.Fatal("something was found that is not there")
	}
}
