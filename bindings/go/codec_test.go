package opendiskmap

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"
	"unsafe"
)

// The bytes are the contract between the languages.
func TestEncodings(t *testing.T) {
	check(t, U8, 0xfe, "fe")
	check(t, U16, 0xfedc, "dcfe")
	check(t, U32, 0xfedcba98, "98badcfe")
	check(t, U64, 0xfedcba9876543210, "1032547698badcfe")
	check(t, U64, math.MaxUint64, "ffffffffffffffff")
	check(t, I8, -2, "fe")
	check(t, I16, -2, "feff")
	check(t, I32, -2, "feffffff")
	check(t, I64, math.MinInt64, "0000000000000080")
	check(t, F32, 1.5, "0000c03f")
	check(t, F64, -2, "00000000000000c0")
	check(t, F64, math.Inf(1), "000000000000f07f")
	check(t, Bool, true, "01")
	check(t, Bool, false, "00")
	check(t, Str, "", "")
	check(t, Str, "é\x00€", "c3a900e282ac")
	check(t, Bytes, []byte{0xff, 0}, "ff00")
	check(t, Bytes, []byte{}, "")
	check(t, JSON[any](), any(map[string]any{"a": "<&>", "b": []any{1.5, nil}}), hex.EncodeToString([]byte(`{"a":"<&>","b":[1.5,null]}`)))
}

// check encodes and decodes a value: with the codec, and as a map does.
func check[T any](t *testing.T, codec Codec[T], value T, encoding string) {
	t.Helper()
	have, err := codec.Append([]byte("before"), value)
	want(t, err, string(have[:6]), "before")
	want(t, nil, hex.EncodeToString(have[6:]), encoding)
	coder, err := newCoder(codec)
	must(t, err)
	span, err := coder.encode(&value, new([]byte))
	want(t, err, hex.EncodeToString(unsafe.Slice(span.start, span.size)), encoding)
	appended, err := coder.appendTo(nil, &value)
	want(t, err, hex.EncodeToString(appended), encoding)

	decoded, err := codec.Decode(have[6:])
	must(t, err)
	var again T
	must(t, coder.decode(have[6:], &again))
	if !reflect.DeepEqual(decoded, value) || !reflect.DeepEqual(again, value) {
		t.Fatalf("decoded %#v and %#v, want %#v", decoded, again, value)
	}
}

func TestNaNKeepsItsBits(t *testing.T) {
	encoding, err := F64.Append(nil, math.NaN())
	must(t, err)
	v, err := F64.Decode(encoding)
	want(t, err, v != v, true)
}

// As in other languages, and so that a key that is not equal to itself is found at all.
func TestAFloatKeyIsOneForBothZerosAndForAllNaN(t *testing.T) {
	zeros, nans := []float64{0, math.Copysign(0, -1)}, []float64{math.NaN(), -math.NaN(), math.Float64frombits(0x7ff0000000000001)}
	m, err := OpenMemory(F64, Str, nil)
	must(t, err)
	defer m.Close()
	for _, keys := range [][]float64{zeros, nans} {
		for _, put := range keys {
			for _, get := range keys {
				must(t, m.Put(put, "there"))
				value, ok, err := m.Get(get)
				want(t, err, value, "there")
				want(t, nil, ok, true)
				existed, err := m.Delete(get)
				want(t, err, existed, true)
			}
		}
	}
}

func TestBytesThatAreNoEncodingAreAnError(t *testing.T) {
	refuse := func(_ any, err error) {
		t.Helper()
		if err == nil {
			t.Fatal("was taken")
		}
	}
	refuse(U8.Decode(nil))
	refuse(U32.Decode([]byte{1, 2, 3}))
	refuse(I64.Decode(make([]byte, 9)))
	refuse(F32.Decode(make([]byte, 8)))
	refuse(Bool.Decode([]byte{2}))
	refuse(Bool.Decode(nil))
	refuse(JSON[int]().Decode([]byte("{")))
	coder, err := newCoder(U32)
	must(t, err)
	if err := coder.decode([]byte{1}, new(uint32)); err == nil || !strings.Contains(err.Error(), "u32") {
		t.Fatal(err)
	}
}

type celsius float32

type record struct {
	Flag   bool      `odm:"flag"`
	ID     uint32    `odm:"id"`
	Name   string    `odm:"name"`
	Heat   celsius   `odm:"heat"`
	Scores []float64 `odm:"scores"`
	Small  int16
	Raw    []byte   `odm:"raw"`
	Pixels []uint8  `odm:"pixels,[u8]"`
	Shorts []uint16 `odm:"shorts"`
	Bits   []bool   `odm:"bits"`
	Left   any      `odm:"-"`
	hidden int
}

const recordName = "struct{flag:bool,id:u32,name:str,heat:f32,scores:[f64],Small:i16,raw:bytes,pixels:[u8],shorts:[u16],bits:[bool]}"

var aRecord = record{Flag: true, ID: 0x01020304, Name: "né", Heat: 1.5, Scores: []float64{1, -2}, Small: -2, Raw: []byte{9},
	Pixels: []byte{7, 8}, Shorts: []uint16{0x0102, 0x0304, 5}, Bits: []bool{true, false, true}}

// The fixed part, then each payload at a multiple of 8, with its offset from the start of the value.
var recordEncoding = strings.Join([]string{
	"01 000000", // flag, padding
	"04030201",  // id
	"40000000 03000000",
	"0000c03f", // heat
	"48000000 02000000",
	"feff 0000", // Small, padding
	"58000000 01000000",
	"60000000 02000000",
	"68000000 03000000",
	"70000000 03000000",
	"6ec3a9 0000000000",
	"000000000000f03f 00000000000000c0",
	"09 00000000000000",
	"0708 000000000000",
	"0201 0403 0500 0000",
	"010001",
}, "")

func TestStructIsACStruct(t *testing.T) {
	codec := Struct[record]()
	must(t, codec.Err())
	want(t, nil, codec.Name(), recordName)
	check[record](t, codec, aRecord, strings.ReplaceAll(recordEncoding, " ", ""))

	// The fixed part is as big as its largest alignment makes it; an empty payload has a place all the same.
	type tail struct {
		A float64 `odm:"a"`
		B uint8   `odm:"b"`
	}
	want(t, nil, Struct[tail]().Name(), "struct{a:f64,b:u8}")
	check[tail](t, Struct[tail](), tail{1, 2}, "000000000000f03f"+"0200000000000000")
	type two struct {
		A string `odm:"a"`
		B string `odm:"b"`
	}
	check[two](t, Struct[two](), two{"x", "yz"}, "1000000001000000"+"1800000002000000"+"7800000000000000"+"797a")
	check[two](t, Struct[two](), two{"x", ""}, "1000000001000000"+"1800000000000000"+"7800000000000000")
	check[two](t, Struct[two](), two{}, "1000000000000000"+"1000000000000000")
}

func TestFieldsAreReadInPlace(t *testing.T) {
	codec := Struct[record]()
	m := fresh[uint32, record](t, U32, codec)
	must(t, m.Put(1, aRecord))
	id, name, heat := FieldOf[uint32](codec, "id"), FieldOf[string](codec, "name"), FieldOf[celsius](codec, "heat")
	scores, flag, shorts := FieldOf[[]float64](codec, "scores"), FieldOf[bool](codec, "flag"), FieldOf[[]uint16](codec, "shorts")
	_, err := m.View(1, func(value []byte) error {
		i, err := id.Read(value)
		want(t, err, i, aRecord.ID)
		n, err := name.Read(value)
		want(t, err, n, aRecord.Name)
		h, err := heat.Read(value)
		want(t, err, h, aRecord.Heat)
		s, err := scores.Read(value)
		want(t, err, fmt.Sprint(s), "[1 -2]")
		f, err := flag.Read(value)
		want(t, err, f, true)
		u, err := shorts.Read(value)
		want(t, err, fmt.Sprint(u, len(u), cap(u)), "[258 772 5] 3 3")

		start, end := uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&value[len(value)-1]))
		for _, p := range []unsafe.Pointer{unsafe.Pointer(unsafe.StringData(n)), unsafe.Pointer(&s[0]), unsafe.Pointer(&u[0])} {
			if uintptr(p) < start || uintptr(p) > end {
				t.Error("a field was copied")
			}
		}
		return nil
	})
	must(t, err)
	if _, err := FieldOf[uint32](codec, "ID").Read(nil); err == nil || !strings.Contains(err.Error(), "no field ID") {
		t.Fatal(err)
	}
	if _, err := FieldOf[uint64](codec, "id").Read(nil); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "id is of type uint32") {
		t.Fatal(err)
	}
	if _, err := id.Read(make([]byte, 10)); !errors.Is(err, ErrEncoding) {
		t.Fatal(err)
	}
}

// Every byte of an encoding is changed, and every beginning of it is tried: an error that names the field, or some value.
func TestAHostileStructIsAnErrorThatNamesTheField(t *testing.T) {
	codec := Struct[record]()
	whole, err := codec.Append(nil, aRecord)
	must(t, err)
	name := FieldOf[string](codec, "name")
	bits := FieldOf[[]bool](codec, "bits")
	try := func(encoding []byte) {
		_, err := codec.Decode(encoding)
		if len(encoding) >= codec.size.bytes && err != nil && !strings.Contains(err.Error(), "field ") {
			t.Fatal(err)
		}
		name.Read(encoding)
		bits.Read(encoding)
	}
	for i := range whole {
		try(whole[:i:i])
		for _, b := range []byte{0, 1, 2, 0x7f, 0xff} {
			changed := append([]byte{}, whole...)
			changed[i] = b
			try(changed)
		}
	}
	outside := append([]byte{}, whole...)
	outside[8+3] = 0x80 // name's offset
	if _, err := codec.Decode(outside); err == nil || !strings.Contains(err.Error(), "field name lies outside") {
		t.Fatal(err)
	}
	crooked := append([]byte{}, whole...)
	crooked[20] = 0x47 // scores' offset
	if _, err := codec.Decode(crooked); err == nil || !strings.Contains(err.Error(), "field scores is not aligned") {
		t.Fatal(err)
	}
	if _, err := codec.Decode(whole[:10]); err == nil {
		t.Fatal("too short")
	}
}

func TestJSONOfATypeWithAPointerReceiver(t *testing.T) {
	m := fresh(t, Str, JSON[big.Int]())
	number, _ := new(big.Int).SetString("123456789012345678901234567890", 10)
	must(t, m.Put("key", *number))
	got, _, err := m.Get("key")
	want(t, err, got.Cmp(number), 0)
}

func TestACodecNeedsANameWithoutASlash(t *testing.T) {
	for _, name := range []string{"", "a/b"} {
		path := directory(t)
		_, err := Open(path, Str, Codec[string](named{Str, name}), nil)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), path) {
			t.Fatal(name, err)
		}
	}
}

type named struct {
	Codec[string]
	name string
}

func (c named) Name() string { return c.name }

func TestATypeWithoutAnEncodingIsRefusedByTheNameOfItsField(t *testing.T) {
	refuse := func(err error, parts ...string) {
		t.Helper()
		for _, part := range parts {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Fatalf("%v: lacks %q", err, part)
			}
		}
	}
	refuse(Struct[int]().Err(), "int is no struct")
	refuse(Struct[struct{}]().Err(), "no fields")
	refuse(Struct[struct{ N int }]().Err(), "field N", "int64")
	refuse(Struct[struct{ P *int }]().Err(), "field P", "*int")
	refuse(Struct[struct{ M map[string]int }]().Err(), "field M")
	refuse(Struct[struct{ S []string }]().Err(), "field S", "[]string")
	refuse(Struct[struct{ A [4]byte }]().Err(), "field A", "slice")
	refuse(Struct[struct {
		A uint8 `odm:"x"`
		B uint8 `odm:"x"`
	}]().Err(), "field B", `"x"`)
	refuse(Struct[struct {
		A uint8 `odm:"a b"`
	}]().Err(), "field A", "name")
	refuse(Struct[struct {
		A uint8 `odm:"a,u16"`
	}]().Err(), "field A", "u16")
	refuse(Struct[struct {
		a uint8 `odm:"a"`
	}]().Err(), "field a", "exported")

	bad := Struct[struct{ N int }]()
	_, err := OpenMemory[uint8](U8, bad, nil)
	refuse(err, "field N")
	if !errors.Is(err, ErrInvalid) {
		t.Fatal(err)
	}
	if _, err := bad.Append(nil, struct{ N int }{}); err == nil {
		t.Fatal("was encoded")
	}
	if _, err := bad.Decode(make([]byte, 100)); err == nil {
		t.Fatal("was decoded")
	}
}

// hours is a codec of a user's own.
type hours struct{}

func (hours) Name() string { return "hours" }
func (hours) Append(dst []byte, v int) ([]byte, error) {
	if v < 0 || v > 23 {
		return dst, fmt.Errorf("%d is no hour", v)
	}
	return append(dst, byte(v)), nil
}
func (hours) Decode(b []byte) (int, error) { return int(b[0]), nil }

func TestOwnCodecs(t *testing.T) {
	m := fresh[int, int](t, hours{}, hours{})
	schema, err := m.Schema()
	want(t, err, schema, "hours/hours")
	must(t, m.Put(23, 5))
	v, _, err := m.Get(23)
	want(t, err, v, 5)
	err = m.Put(24, 0)
	if !errors.Is(err, ErrEncoding) || !strings.Contains(err.Error(), "24 is no hour") {
		t.Fatal(err)
	}
}
