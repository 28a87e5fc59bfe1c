//go:build opendiskmap_system

package opendiskmap

// go build -tags opendiskmap_system: against the installed library.

// #cgo pkg-config: opendiskmap
import "C"
