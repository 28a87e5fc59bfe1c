module opendiskmap.example/opendiskmap

go 1.24
