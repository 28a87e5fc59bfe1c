package opendiskmap

// Struct values of arbitrary bytes: anybody may have written them.
//
// ODM_TEST_FUZZ: how many values, for long runs. ODM_TEST_SEED: others.

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unsafe"
)

type fuzzedText struct {
	ID     uint32    `odm:"id"`
	Name   string    `odm:"name"`
	Alive  bool      `odm:"alive"`
	Scores []float64 `odm:"scores"`
	Data   []byte    `odm:"data"`
}

type fuzzedLists struct {
	A []uint16 `odm:"a"`
	B []int64  `odm:"b"`
	C []bool   `odm:"c"`
	D []float32
	E uint64
}

type fuzzedWhole struct {
	X float32
	B bool
}

func fromEnvironment(t *testing.T, name string, usual uint64) uint64 {
	text, ok := os.LookupEnv(name)
	if !ok {
		return usual
	}
	number, err := strconv.ParseUint(text, 10, 64)
	must(t, err)
	return number
}

// Each field is what its bytes say, or an error names it; whether a whole value is decoded, or a field is read where it lies.
// Nothing panics, and what is read lies in the value. The value is in the midst of other bytes, 8-byte aligned as in a map.
func TestStructsOfArbitraryBytes(t *testing.T) {
	random := rand.New(rand.NewPCG(fromEnvironment(t, "ODM_TEST_SEED", 1), 0))
	count := fromEnvironment(t, "ODM_TEST_FUZZ", 20000)
	for range count {
		switch random.IntN(3) {
		case 0:
			fuzzStruct(t, random, fuzzedText{7, "Ada", true, []float64{1, 2.5}, []byte("abc")})
		case 1:
			fuzzStruct(t, random, fuzzedLists{[]uint16{1, 2, 3}, []int64{-1}, []bool{true, false}, []float32{1.5}, 9})
		default:
			fuzzStruct(t, random, fuzzedWhole{1.5, true})
		}
	}
}

func fuzzStruct[T any](t *testing.T, random *rand.Rand, value T) {
	t.Helper()
	codec := Struct[T]()
	good, err := codec.Append(nil, value)
	must(t, err)
	encoding := hostile(random, good, codec.size.bytes)
	arena := make([]uint64, len(encoding)/8+3) // so that it is aligned
	memory := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(arena))), len(arena)*8)
	for i := range memory {
		memory[i] = 0xee
	}
	copy(memory[8:], encoding)
	encoding = memory[8:][:len(encoding):len(encoding)]

	decoded, err := codec.Decode(encoding)
	fits := len(encoding) == codec.size.bytes || len(encoding) > codec.size.bytes && !codec.size.whole
	if !fits {
		if err == nil || !strings.Contains(err.Error(), codec.Name()) {
			t.Fatalf("%s of %x: %d bytes do not fit, but the error is %v", codec.Name(), encoding, len(encoding), err)
		}
		return
	}
	var bad string // the first field that can not be read
	for i, f := range codec.fields {
		wanted, ok := plainly(&f, encoding)
		if !ok && bad == "" {
			bad = f.name
		}
		have := reflect.ValueOf(decoded).Field(i)
		if ok && bad == "" && err == nil && string(bytesOf(&f, have)) != string(wanted) {
			t.Fatalf("%s of %x: field %s is %v, not the bytes %x", codec.Name(), encoding, f.name, have, wanted)
		}
		readInPlace(t, codec, &f, encoding, wanted, ok)
	}
	if (err == nil) != (bad == "") || err != nil && !strings.HasPrefix(err.Error(), "field "+bad+" ") {
		t.Fatalf("%s of %x: the first bad field is %q, but the error is %v", codec.Name(), encoding, bad, err)
	}
}

func hostile(random *rand.Rand, good []byte, fixed int) []byte {
	encoding := append([]byte{}, good...)
	if random.IntN(8) == 0 {
		encoding = make([]byte, random.IntN(96))
	}
	if random.IntN(6) == 0 {
		encoding = encoding[:random.IntN(len(encoding)+1)]
	}
	if random.IntN(6) == 0 {
		encoding = append(encoding, make([]byte, random.IntN(24))...)
	}
	for range random.IntN(4) {
		if len(encoding) > 0 {
			encoding[random.IntN(len(encoding))] = byte(random.IntN(256))
		}
	}
	for range random.IntN(3) {
		if len(encoding) < fixed {
			break
		}
		n := uint32(len(encoding))
		words := []uint32{0, 1, 8, uint32(fixed), n - 8, n, n + 1, 1<<29 + 1, 1 << 31, 1<<32 - 8, 1<<32 - 1, uint32(random.IntN(64))}
		binary.LittleEndian.PutUint32(encoding[4*random.IntN(fixed/4):], words[random.IntN(len(words))])
	}
	return encoding
}

// plainly finds a field's bytes in the plainest way.
func plainly(f *field, encoding []byte) (bytes []byte, ok bool) {
	from, size := uint64(f.offset), uint64(f.elemSize)
	if f.shape != fixed {
		from = uint64(binary.LittleEndian.Uint32(encoding[f.offset:]))
		size *= uint64(binary.LittleEndian.Uint32(encoding[f.offset+4:]))
		if from+size > uint64(len(encoding)) || from%uint64(f.elemSize) != 0 {
			return nil, false
		}
	}
	bytes = encoding[from : from+size]
	for _, b := range bytes {
		if f.isBool && b > 1 {
			return nil, false
		}
	}
	return bytes, true
}

// bytesOf is the memory of a field's value: of its elements if it is a string or a slice.
func bytesOf(f *field, value reflect.Value) []byte {
	switch f.shape {
	case stringy:
		return []byte(value.String())
	case sliced:
		return unsafe.Slice((*byte)(value.UnsafePointer()), value.Len()*f.elemSize)
	}
	number := reflect.New(value.Type())
	number.Elem().Set(value)
	return unsafe.Slice((*byte)(number.UnsafePointer()), f.elemSize)
}

// readInPlace reads a field by Field.Read, whatever its type.
func readInPlace[T any](t *testing.T, codec *StructCodec[T], f *field, encoding, wanted []byte, ok bool) {
	t.Helper()
	var value any
	var err error
	switch reflect.Zero(f.goType).Interface().(type) {
	case uint32:
		value, err = FieldOf[uint32](codec, f.name).Read(encoding)
	case uint64:
		value, err = FieldOf[uint64](codec, f.name).Read(encoding)
	case float32:
		value, err = FieldOf[float32](codec, f.name).Read(encoding)
	case bool:
		value, err = FieldOf[bool](codec, f.name).Read(encoding)
	case string:
		value, err = FieldOf[string](codec, f.name).Read(encoding)
	case []byte:
		value, err = FieldOf[[]byte](codec, f.name).Read(encoding)
	case []uint16:
		value, err = FieldOf[[]uint16](codec, f.name).Read(encoding)
	case []int64:
		value, err = FieldOf[[]int64](codec, f.name).Read(encoding)
	case []bool:
		value, err = FieldOf[[]bool](codec, f.name).Read(encoding)
	case []float32:
		value, err = FieldOf[[]float32](codec, f.name).Read(encoding)
	case []float64:
		value, err = FieldOf[[]float64](codec, f.name).Read(encoding)
	default:
		t.Fatalf("field %s is a %v", f.name, f.goType)
	}
	if (err == nil) != ok || err != nil && !strings.HasPrefix(err.Error(), "opendiskmap: read a field: field "+f.name+" ") {
		t.Fatalf("%s of %x: field %s: readable %v, error %v", codec.Name(), encoding, f.name, ok, err)
	}
	if ok && string(bytesOf(f, reflect.ValueOf(value))) != string(wanted) {
		t.Fatalf("%s of %x: field %s read in place is %v, not the bytes %x", codec.Name(), encoding, f.name, value, wanted)
	}
}

// The same through a map: who reads a damaged value is told which it is, and goes on with the next.
func TestAMapOfStructsOfArbitraryBytes(t *testing.T) {
	random := rand.New(rand.NewPCG(fromEnvironment(t, "ODM_TEST_SEED", 1), 1))
	path := directory(t)
	codec := Struct[fuzzedText]()
	m := reopen(t, path, U32, codec)
	raw, err := Open(path, U32, Bytes, &Options{AnySchema: true})
	must(t, err)
	defer func() { must(t, raw.Close()) }()
	good, err := codec.Append(nil, fuzzedText{1, "Ada", true, []float64{1}, []byte("x")})
	must(t, err)
	for range fromEnvironment(t, "ODM_TEST_FUZZ", 20000) / 20 {
		key, encoding := uint32(random.IntN(16)), hostile(random, good, codec.size.bytes)
		must(t, raw.Put(key, encoding))
		value, ok, err := m.Get(key)
		decoded, decodeErr := codec.Decode(encoding)
		if (err == nil) != (decodeErr == nil) || ok != (err == nil) {
			t.Fatalf("%x: Get says %v, %v; the codec says %v", encoding, ok, err, decodeErr)
		}
		// Compared by their bytes: NaN is not equal to itself.
		have, _ := codec.Append(nil, value)
		wanted, _ := codec.Append(nil, decoded)
		if err == nil && string(have) != string(wanted) {
			t.Fatalf("%x: Get gives %v, not %v", encoding, value, decoded)
		}
	}
}
