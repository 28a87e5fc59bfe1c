//go:build !cgo || !linux || !(amd64 || arm64 || loong64 || ppc64le || riscv64)

package opendiskmap

// Nothing else of this package is built here, so that the compiler's one message says why.
var _ = opendiskmap_needs_64_bit_little_endian_Linux_and_cgo__set_CGO_ENABLED_to_1_and_install_a_C_compiler
