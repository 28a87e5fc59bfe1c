package opendiskmap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"unsafe"
)

// A Codec turns values of a type into bytes and back. A map keeps the names of its two codecs as its schema, "u64/str" for
// example, and is not opened with others.
//
// An own codec needs a name of its own. It is used by many goroutines at once.
type Codec[T any] interface {
	// Name is the codec's part of the schema. It has no slash in it.
	Name() string
	// Append appends the encoding of value to dst, and does not keep value.
	Append(dst []byte, value T) ([]byte, error)
	// Decode makes a value of its encoding. The bytes are the map's own: Decode must neither change nor keep them.
	Decode(encoding []byte) (T, error)
}

// The encodings that all languages share. Numbers have a fixed width and are little-endian, a bool is a byte 0 or 1, Str is
// the bytes of a string (UTF-8, for the sake of other languages; it is not checked), Bytes is the bytes as they are.
var (
	U8    Codec[uint8]   = scalar[uint8]{"u8"}
	U16   Codec[uint16]  = scalar[uint16]{"u16"}
	U32   Codec[uint32]  = scalar[uint32]{"u32"}
	U64   Codec[uint64]  = scalar[uint64]{"u64"}
	I8    Codec[int8]    = scalar[int8]{"i8"}
	I16   Codec[int16]   = scalar[int16]{"i16"}
	I32   Codec[int32]   = scalar[int32]{"i32"}
	I64   Codec[int64]   = scalar[int64]{"i64"}
	F32   Codec[float32] = scalar[float32]{"f32"}
	F64   Codec[float64] = scalar[float64]{"f64"}
	Bool  Codec[bool]    = boolean{}
	Str   Codec[string]  = text{}
	Bytes Codec[[]byte]  = raw{}
)

// JSON encodes any value as JSON text, with encoding/json, which is given its address: methods with a pointer receiver count.
func JSON[T any]() Codec[T] { return jsonText[T]{} }

// A number is what is stored in a fixed number of bytes.
type number interface {
	uint8 | uint16 | uint32 | uint64 | int8 | int16 | int32 | int64 | float32 | float64
}

// A scalar's bytes in memory are its encoding: this package is built for little-endian machines only.
type scalar[T number] struct{ name string }

func (c scalar[T]) Name() string { return c.name }

func (c scalar[T]) Append(dst []byte, value T) ([]byte, error) {
	return append(dst, memoryOf(&value)...), nil
}

func (c scalar[T]) Decode(encoding []byte) (value T, err error) {
	if len(encoding) != int(unsafe.Sizeof(value)) {
		return value, sizeError(c.name, int(unsafe.Sizeof(value)), len(encoding))
	}
	copy(memoryOf(&value), encoding)
	return value, nil
}

// floatKey is a scalar where it is a key: 0 and -0 are one key, as in a Go map, and all NaN are one, so that they can be found.
type floatKey[T float32 | float64] struct{ scalar[T] }

func (c floatKey[T]) Append(dst []byte, value T) ([]byte, error) {
	switch {
	case value == 0:
		value = 0
	case value != value:
		value = T(math.Float64frombits(0x7ff8000000000000))
	}
	return c.scalar.Append(dst, value)
}

// keyCodec is the codec for keys of a codec.
func keyCodec[K any](codec Codec[K]) Codec[K] {
	switch c := any(codec).(type) {
	case scalar[float32]:
		return any(floatKey[float32]{c}).(Codec[K])
	case scalar[float64]:
		return any(floatKey[float64]{c}).(Codec[K])
	}
	return codec
}

type boolean struct{}

func (boolean) Name() string { return "bool" }

func (boolean) Append(dst []byte, value bool) ([]byte, error) {
	if value {
		return append(dst, 1), nil
	}
	return append(dst, 0), nil
}

func (boolean) Decode(encoding []byte) (bool, error) {
	if len(encoding) != 1 {
		return false, sizeError("bool", 1, len(encoding))
	}
	if encoding[0] > 1 {
		return false, fmt.Errorf("a bool is the byte 0 or 1, this is %d", encoding[0])
	}
	return encoding[0] == 1, nil
}

type text struct{}

func (text) Name() string                                    { return "str" }
func (text) Append(dst []byte, value string) ([]byte, error) { return append(dst, value...), nil }
func (text) Decode(encoding []byte) (string, error)          { return string(encoding), nil }

type raw struct{}

func (raw) Name() string                                    { return "bytes" }
func (raw) Append(dst []byte, value []byte) ([]byte, error) { return append(dst, value...), nil }
func (raw) Decode(encoding []byte) ([]byte, error)          { return append([]byte{}, encoding...), nil }

type jsonText[T any] struct{}

func (jsonText[T]) Name() string { return "json" }

func (jsonText[T]) Append(dst []byte, value T) ([]byte, error) {
	buffer := bytes.NewBuffer(dst)
	encoder := json.NewEncoder(buffer)
	encoder.SetEscapeHTML(false)                   // The text is for programs, as other languages write it.
	if err := encoder.Encode(&value); err != nil { // Its address, for a MarshalJSON with a pointer receiver.
		return dst, err
	}
	return bytes.TrimSuffix(buffer.Bytes(), []byte("\n")), nil
}

func (jsonText[T]) Decode(encoding []byte) (value T, err error) {
	err = json.Unmarshal(encoding, &value)
	return value, err
}

func sizeError(name string, want, have int) error {
	return fmt.Errorf("a %s has %d bytes, this has %d", name, want, have)
}

// memoryOf is a value's bytes as they lie in memory.
func memoryOf[T any](value *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(value)), unsafe.Sizeof(*value))
}

// ---- what a map makes of its codecs -------------------------------------------------------------------------------

// How a type is encoded. All but encoded go without a call of the codec, and to C without a copy.
type form uint8

const (
	encoded form = iota // by the codec
	inPlace             // the value's memory is its encoding
	asString
	asBytes
)

type coder[T any] struct {
	codec Codec[T]
	form  form
}

func newCoder[T any](codec Codec[T]) (coder[T], error) {
	if codec == nil {
		return coder[T]{}, errors.New("a codec is nil")
	}
	if checked, ok := codec.(interface{ Err() error }); ok && checked.Err() != nil {
		return coder[T]{}, checked.Err()
	}
	if name := codec.Name(); name == "" || strings.Contains(name, "/") {
		return coder[T]{}, fmt.Errorf("a codec's name is %q: it needs one, without a slash", name)
	}
	c := coder[T]{codec: codec}
	switch any(codec).(type) {
	case scalar[uint8], scalar[uint16], scalar[uint32], scalar[uint64],
		scalar[int8], scalar[int16], scalar[int32], scalar[int64], scalar[float32], scalar[float64]:
		c.form = inPlace
	case text:
		c.form = asString
	case raw:
		c.form = asBytes
	}
	return c, nil
}

// asIs is the encoding of *value, where it lies. The form is not encoded.
func (c *coder[T]) asIs(value *T) span {
	if c.form == inPlace {
		return span{(*byte)(unsafe.Pointer(value)), int(unsafe.Sizeof(*value))}
	}
	// A string, or bytes, as newCoder has seen: both begin with where they lie and their size.
	return *(*span)(unsafe.Pointer(value))
}

// encode gives the encoding of *value: where it lies, or in *scratch.
func (c *coder[T]) encode(value *T, scratch *[]byte) (span, error) {
	if c.form != encoded {
		return c.asIs(value), nil
	}
	bytes, err := c.codec.Append((*scratch)[:0], *value)
	if err != nil {
		return span{}, err
	}
	*scratch = bytes
	return spanOf(bytes), nil
}

// appendTo appends the encoding of *value.
func (c *coder[T]) appendTo(dst []byte, value *T) ([]byte, error) {
	switch c.form {
	case inPlace:
		return append(dst, memoryOf(value)...), nil
	case asString:
		return append(dst, *(*string)(unsafe.Pointer(value))...), nil
	case asBytes:
		return append(dst, *(*[]byte)(unsafe.Pointer(value))...), nil
	}
	return c.codec.Append(dst, *value)
}

// decode sets *value, which keeps nothing of the encoding.
func (c *coder[T]) decode(encoding []byte, value *T) (err error) {
	switch c.form {
	case inPlace:
		if len(encoding) != int(unsafe.Sizeof(*value)) {
			return sizeError(c.codec.Name(), int(unsafe.Sizeof(*value)), len(encoding))
		}
		copy(memoryOf(value), encoding)
		return nil
	case asString:
		*(*string)(unsafe.Pointer(value)) = string(encoding)
		return nil
	}
	*value, err = c.codec.Decode(encoding)
	return err
}

const sizeMax = math.MaxUint32 // of a value: its slices' offsets have 32 bits
