//go:build !cgo || !linux || !(amd64 || arm64 || loong64 || ppc64le || riscv64)

package opendiskmap

// The package can not be built here, and the compiler's first message says why: types are looked at first, by the files' names.
type _ opendiskmap_needs_64_bit_little_endian_Linux_and_cgo__set_CGO_ENABLED_to_1_and_install_a_C_compiler
