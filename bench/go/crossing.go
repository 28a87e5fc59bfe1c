package main

/*
#cgo nocallback nothing
static void nothing(void) {}
*/
import "C"

import "strings"

// A crossingEngine is a built-in map with an empty call into C before each look-up: what a store behind cgo could at best be.
type crossingEngine struct{ mapEngine }

func (e *crossingEngine) gets(keys []string) (s sum) {
	for _, key := range keys {
		C.nothing()
		if value, ok := e.m[key]; ok {
			s += touch(value)
		}
	}
	return s
}

func (e *crossingEngine) copies(keys []string) (s sum) {
	for _, key := range keys {
		C.nothing()
		if value, ok := e.m[key]; ok {
			s += touch(keep(strings.Clone(value)))
		}
	}
	return s
}
