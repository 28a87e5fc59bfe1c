module opendiskmap.example/interop

go 1.24

require opendiskmap.example/opendiskmap v1.0.0

// In the repository: the binding as it lies there.
replace opendiskmap.example/opendiskmap => ../../../bindings/go
