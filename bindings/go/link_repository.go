//go:build !opendiskmap_system

package opendiskmap

// In the repository the engine is linked from wherever CMake built it last; the first folder that has it wins. The module
// zip has link_embedded.go in place of this file: it carries the engine's source, and cgo compiles it.

// #cgo CFLAGS: -I${SRCDIR}/../../include
// #cgo LDFLAGS: -L${SRCDIR}/../../build/release/core -L${SRCDIR}/../../build/install/core
// #cgo LDFLAGS: -L${SRCDIR}/../../build/quickstart/core -L${SRCDIR}/../../build/core
// #cgo LDFLAGS: -l:libopendiskmap.a -lpthread
import "C"
