package opendiskmap

import (
	"fmt"
	"reflect"
	"strings"
	"unsafe"
)

// A StructCodec encodes a Go struct as the C struct that its name describes, such as
//
//	struct{id:u32,name:str,scores:[f64]}
//
// so that other languages, and views, read single fields where they lie. Fields come in their order with the alignment C
// gives them. A str, bytes or [T] field is an odm_slice in that struct (the offset of its bytes from the start of the value,
// and the number of its elements); the bytes follow the struct, each field's from a multiple of 8 on, in the fields' order.
// Everything between is zero.
//
// The field's name is its tag, else its Go name. These types have an encoding:
//
//	type City struct {
//		ID     uint32    `odm:"id"`            // u8 ... u64, i8 ... i64, f32, f64, bool: the type of the same width
//		Name   string    `odm:"name"`          // str
//		Flag   []byte    `odm:"flag"`          // bytes
//		Pixels []byte    `odm:"pixels,[u8]"`   // [u8]: the same bytes under another name
//		Scores []float64 `odm:"scores"`        // [f64]; likewise of the other numbers and bool
//		cache  *City                           // not stored: not exported
//		Notes  any       `odm:"-"`             // not stored
//	}
//
// A slice without elements is decoded as nil.
type StructCodec[T any] struct {
	name   string
	fields []field
	size   fixedPart
	err    error
}

// fixedPart is the C struct at the begin of a value.
type fixedPart struct {
	bytes int
	whole bool // there are no slices, so that nothing can follow
}

func (p fixedPart) check(name string, encoding []byte) error {
	switch {
	case len(encoding) < p.bytes:
		return fmt.Errorf("%s has at least %d bytes, this has %d", name, p.bytes, len(encoding))
	case len(encoding) > p.bytes && p.whole:
		return fmt.Errorf("%s has %d bytes, this has %d", name, p.bytes, len(encoding))
	}
	return nil
}

// A field is one of the C struct.
type field struct {
	name     string
	encoding string // "u32", "str", "[f64]"
	goOffset uintptr
	offset   int // in the C struct
	shape    shape
	elemSize int          // bytes of an element of a slice
	isBool   bool         // the field, or its elements: nothing but 0 and 1 is one
	goType   reflect.Type // without its name
}

// How a field is stored.
type shape uint8

const (
	fixed   shape = iota // as in memory: a number or bool of elemSize bytes
	stringy              // an odm_slice, a Go string
	sliced               // an odm_slice, a Go slice
)

// sliceHeader is odm_slice.
type sliceHeader struct{ offset, count uint32 }

// Struct makes the codec of a struct type, by reflection, once. A type that has no encoding is an error when a map is opened
// with the codec, and names the field; Err tells it before.
func Struct[T any]() *StructCodec[T] {
	c := &StructCodec[T]{}
	c.err = c.plan()
	return c
}

// Err tells why the type has no encoding; nil if it has one.
func (c *StructCodec[T]) Err() error { return c.err }

// Name is the struct's description: struct{id:u32,name:str,scores:[f64]}.
func (c *StructCodec[T]) Name() string { return c.name }

var scalarNames = map[reflect.Kind]string{
	reflect.Uint8: "u8", reflect.Uint16: "u16", reflect.Uint32: "u32", reflect.Uint64: "u64",
	reflect.Int8: "i8", reflect.Int16: "i16", reflect.Int32: "i32", reflect.Int64: "i64",
	reflect.Float32: "f32", reflect.Float64: "f64", reflect.Bool: "bool",
}

func (c *StructCodec[T]) plan() error {
	t := reflect.TypeFor[T]()
	if t.Kind() != reflect.Struct {
		return fmt.Errorf("%v is no struct", t)
	}
	offset, alignment := 0, 1
	c.size.whole = true
	var parts []string
	for i := range t.NumField() {
		goField := t.Field(i)
		name, wanted, _ := strings.Cut(goField.Tag.Get("odm"), ",")
		if name == "-" || (!goField.IsExported() && name == "") {
			continue
		}
		if name == "" {
			name = goField.Name
		}
		f, align, err := planField(goField, name, wanted)
		if err != nil {
			return fmt.Errorf("field %s of %v: %w", goField.Name, t, err)
		}
		for _, other := range c.fields {
			if other.name == name {
				return fmt.Errorf("field %s of %v: another one is stored as %q, too", goField.Name, t, name)
			}
		}
		offset = roundUp(offset, align)
		f.offset = offset
		offset += f.fixedSize()
		alignment = max(alignment, align)
		c.size.whole = c.size.whole && f.shape == fixed
		c.fields = append(c.fields, f)
		parts = append(parts, f.name+":"+f.encoding)
	}
	if len(c.fields) == 0 {
		return fmt.Errorf("%v has no fields to store: they must be exported", t)
	}
	c.size.bytes = roundUp(offset, alignment)
	c.name = "struct{" + strings.Join(parts, ",") + "}"
	return nil
}

// planField finds a field's encoding, and its alignment in the C struct.
func planField(goField reflect.StructField, name, wanted string) (f field, align int, err error) {
	if !isName(name) {
		return f, 0, fmt.Errorf("%q is no name: letters, digits and _ make one", name)
	}
	if !goField.IsExported() {
		return f, 0, fmt.Errorf("it has a tag, but is not exported")
	}
	t := goField.Type
	f = field{name: name, goOffset: goField.Offset, goType: t}
	if scalar, ok := scalarNames[t.Kind()]; ok {
		f.encoding, f.shape, f.elemSize, f.isBool = scalar, fixed, int(t.Size()), t.Kind() == reflect.Bool
		align = f.elemSize
	} else if t.Kind() == reflect.String {
		f.encoding, f.shape, f.elemSize = "str", stringy, 1
		align = int(unsafe.Alignof(sliceHeader{}))
	} else if scalar, ok := elementName(t); ok {
		f.encoding, f.shape, f.elemSize, f.isBool = "["+scalar+"]", sliced, int(t.Elem().Size()), t.Elem().Kind() == reflect.Bool
		if scalar == "u8" && wanted != "[u8]" {
			f.encoding = "bytes"
		}
		align = int(unsafe.Alignof(sliceHeader{}))
	} else {
		return f, 0, fmt.Errorf("%v has no encoding: %s", t, cure(t))
	}
	if wanted != "" && wanted != f.encoding {
		return f, 0, fmt.Errorf("its tag says %s, but %v is %s", wanted, t, f.encoding)
	}
	return f, align, nil
}

func elementName(t reflect.Type) (string, bool) {
	if t.Kind() != reflect.Slice {
		return "", false
	}
	name, ok := scalarNames[t.Elem().Kind()]
	return name, ok
}

func cure(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Uint, reflect.Uintptr:
		return "its width differs between machines; use int64 or uint64"
	case reflect.Array:
		return "use a slice"
	}
	return "use a number, bool, string or slice of numbers, leave it out by the tag odm:\"-\", or encode the value as JSON"
}

func isName(name string) bool {
	for i, r := range name {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || '9' < r) {
			return false
		}
	}
	return name != ""
}

func (f *field) fixedSize() int {
	if f.shape == fixed {
		return f.elemSize
	}
	return sliceHeaderSize
}

// payload is the bytes of a string or slice field at p, in Go's memory.
func (f *field) payload(p unsafe.Pointer) (bytes []byte, count int) {
	if f.shape == stringy {
		s := *(*string)(p)
		return unsafe.Slice(unsafe.StringData(s), len(s)), len(s)
	}
	s := *(*[]byte)(p) // Of whatever elements: the pointer and the length are at the same place.
	return unsafe.Slice(unsafe.SliceData(s), len(s)*f.elemSize), len(s)
}

func roundUp(n, multiple int) int { return (n + multiple - 1) / multiple * multiple }

// Append appends the encoding of value.
func (c *StructCodec[T]) Append(dst []byte, value T) ([]byte, error) {
	if c.err != nil {
		return dst, c.err
	}
	start := len(dst)
	dst = append(dst, make([]byte, c.size.bytes)...)
	for i := range c.fields {
		f := &c.fields[i]
		p := unsafe.Add(unsafe.Pointer(&value), f.goOffset)
		if f.shape == fixed {
			copy(dst[start+f.offset:], unsafe.Slice((*byte)(p), f.elemSize))
			continue
		}
		bytes, count := f.payload(p)
		at := roundUp(len(dst)-start, 8)
		if uint64(at)+uint64(len(bytes)) > sizeMax {
			return dst[:start], fmt.Errorf("field %s has %d bytes: a value has at most 4 GiB", f.name, len(bytes))
		}
		dst = append(dst, make([]byte, start+at-len(dst))...)
		dst = append(dst, bytes...)
		header := sliceHeader{uint32(at), uint32(count)}
		copy(dst[start+f.offset:], memoryOf(&header))
	}
	return dst, nil
}

// Decode makes a struct of its encoding, with copies of what its fields refer to.
func (c *StructCodec[T]) Decode(encoding []byte) (value T, err error) {
	if err := c.checkSize(encoding); err != nil {
		return value, err
	}
	for i := range c.fields {
		f := &c.fields[i]
		bytes, err := f.in(encoding)
		if err != nil {
			return value, err
		}
		f.set(unsafe.Add(unsafe.Pointer(&value), f.goOffset), bytes)
	}
	return value, nil
}

// set gives the field at p a copy of its bytes.
func (f *field) set(p unsafe.Pointer, bytes []byte) {
	switch {
	case f.shape == fixed:
		copy(unsafe.Slice((*byte)(p), f.elemSize), bytes)
	case len(bytes) == 0: // The zero value already.
	case f.shape == stringy:
		*(*string)(p) = string(bytes)
	default:
		// Aligned for whatever elements. Not by reflection, for which the struct itself would move to the heap.
		room := unsafe.SliceData(make([]uint64, (len(bytes)+7)/8))
		copy(unsafe.Slice((*byte)(unsafe.Pointer(room)), len(bytes)), bytes)
		*(*[]byte)(p) = unsafe.Slice((*byte)(unsafe.Pointer(room)), len(bytes)/f.elemSize)
	}
}

func (c *StructCodec[T]) checkSize(encoding []byte) error {
	if c.err != nil {
		return c.err
	}
	return c.size.check(c.name, encoding)
}

// in finds a field's bytes in an encoding whose size was checked.
func (f *field) in(encoding []byte) ([]byte, error) {
	bytes := encoding[f.offset : f.offset+f.fixedSize()]
	if f.shape != fixed {
		var header sliceHeader
		copy(memoryOf(&header), bytes)
		size := uint64(header.count) * uint64(f.elemSize)
		if uint64(header.offset)+size > uint64(len(encoding)) {
			return nil, fmt.Errorf("field %s lies outside the value: offset %d, %d elements, in %d bytes", f.name,
				header.offset, header.count, len(encoding))
		}
		if int(header.offset)%f.elemSize != 0 {
			return nil, fmt.Errorf("field %s is not aligned: offset %d", f.name, header.offset)
		}
		bytes = encoding[header.offset:][:size]
	}
	if f.isBool {
		for _, b := range bytes {
			if b > 1 {
				return nil, fmt.Errorf("field %s is a bool, which is the byte 0 or 1, this is %d", f.name, b)
			}
		}
	}
	return bytes, nil
}

// A Field reads one field of a struct where it lies, without decoding the others. F is the field's Go type. Make it once with
// FieldOf, and use it in View or in a loop over Walk.Slices.
type Field[F any] struct {
	field field
	size  fixedPart
	name  string
	err   error
}

// FieldOf finds a field by the name it is stored under. If there is none, or its type is not F, then every Read of it says so,
// as ErrInvalid.
func FieldOf[F, T any](c *StructCodec[T], name string) Field[F] {
	result := Field[F]{size: c.size, name: c.name, err: c.err}
	if c.err != nil {
		return result
	}
	want := reflect.TypeFor[F]()
	for _, f := range c.fields {
		if f.name != name {
			continue
		}
		if f.goType != want {
			result.err = fmt.Errorf("field %s is of type %v, not %v", name, f.goType, want)
		}
		result.field = f
		return result
	}
	result.err = fmt.Errorf("%s has no field %s", c.name, name)
	return result
}

// Read is the field's value in an encoding of the struct. A string or slice is not copied: it is valid as long as the
// encoding is, and writing to it ends the program. Bytes that are no encoding of the struct are ErrEncoding.
func (r Field[F]) Read(encoding []byte) (value F, err error) {
	if r.err != nil {
		return value, &Error{Op: "read a field", Code: ErrInvalid, Err: r.err}
	}
	err = r.size.check(r.name, encoding)
	var bytes []byte
	if err == nil {
		bytes, err = r.field.in(encoding)
	}
	if err != nil {
		return value, &Error{Op: "read a field", Code: ErrEncoding, Err: err}
	}
	p := unsafe.Pointer(&value)
	switch {
	case r.field.shape == fixed:
		copy(memoryOf(&value), bytes)
	case len(bytes) == 0:
	case r.field.shape == stringy:
		*(*string)(p) = unsafe.String(unsafe.SliceData(bytes), len(bytes))
	default:
		// Of whatever elements: the pointer, the length and the capacity are at the same places.
		*(*[]byte)(p) = unsafe.Slice(unsafe.SliceData(bytes), len(bytes)/r.field.elemSize)
	}
	return value, nil
}
