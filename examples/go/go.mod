module opendiskmap.example/examples

go 1.24

require opendiskmap.example/opendiskmap v1.0.0

// In the repository: the binding beside.
replace opendiskmap.example/opendiskmap => ../../bindings/go
