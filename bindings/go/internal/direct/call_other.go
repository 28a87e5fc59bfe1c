//go:build !amd64 || opendiskmap_cgo_only

package direct

import "unsafe"

// Supported tells whether Call exists here.
const Supported = false

// Call is not for here.
func Call(function, context, data unsafe.Pointer, size int) unsafe.Pointer {
	panic("direct.Call is not supported here")
}
