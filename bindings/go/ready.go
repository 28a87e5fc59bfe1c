package opendiskmap

// The most common maps, ready made.
type (
	U64StringMap    = Map[uint64, string]
	StringU64Map    = Map[string, uint64]
	StringStringMap = Map[string, string]
)

// OpenU64String is Open with the codecs U64 and Str.
func OpenU64String(path string, opts *Options) (*U64StringMap, error) {
	return Open(path, U64, Str, opts)
}

// OpenStringU64 is Open with the codecs Str and U64.
func OpenStringU64(path string, opts *Options) (*StringU64Map, error) {
	return Open(path, Str, U64, opts)
}

// OpenStringString is Open with the codecs Str and Str.
func OpenStringString(path string, opts *Options) (*StringStringMap, error) {
	return Open(path, Str, Str, opts)
}
