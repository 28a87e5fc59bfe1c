//go:build !opendiskmap_cgo_only

package direct

import "unsafe"

// Supported tells whether Call exists here.
const Supported = true

// Call returns function(context, data, size), a C function of two pointers and a size_t that returns a pointer.
//
//go:noescape
func Call(function, context, data unsafe.Pointer, size int) unsafe.Pointer
