// Interop is the Go side of the tests between languages. Its commands are those of interop.c.
//
//	interop vectors|write|read VECTORS [DIR]
//	interop live MAP INDEX ALL N
package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	odm "opendiskmap.example/opendiskmap"
)

type vector struct {
	Name  string
	Value json.RawMessage
	Bytes encoding
	Key   encoding // where it differs from Bytes
	Field *string
}

type vectorsOfType struct {
	Type, Schema string
	Values, Bad  []vector
	ReadOnly     []vector `json:"read_only"`
}

// An encoding is given in hexadecimal, or as {"repeat": hexadecimal, "count": n}.
type encoding []byte

func (e *encoding) UnmarshalJSON(text []byte) error {
	once, count, err := repeated(text)
	if err != nil {
		return err
	}
	decoded, err := hex.DecodeString(once)
	*e = bytes.Repeat(decoded, count)
	return err
}

func repeated(text []byte) (once string, count int, err error) {
	if text[0] == '"' {
		err = json.Unmarshal(text, &once)
		return once, 1, err
	}
	var given struct {
		Repeat string
		Count  int
	}
	err = json.Unmarshal(text, &given)
	return given.Repeat, given.Count, err
}

func (v vector) keyBytes() string {
	if v.Key != nil {
		return string(v.Key)
	}
	return string(v.Bytes)
}

func check(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func fail(format string, arguments ...any) {
	message := fmt.Sprintf(format, arguments...)
	fmt.Fprintln(os.Stderr, "FAILED (Go):", message[:min(len(message), 1000)])
	os.Exit(1)
}

func load(path string) (types []vectorsOfType) {
	text, err := os.ReadFile(path)
	check(err)
	check(json.Unmarshal(text, &types))
	return types
}

// ---- the types, as a program declares them --------------------------------------------------------------------------

type player struct {
	ID     uint32    `odm:"id"`
	Name   string    `odm:"name"`
	Scores []float64 `odm:"scores"`
}

type reordered struct {
	Scores []float64 `odm:"scores"`
	Name   string    `odm:"name"`
	ID     uint32    `odm:"id"`
}

type padded struct {
	K1 uint8   `odm:"k1"`
	K2 uint16  `odm:"k2"`
	K3 bool    `odm:"k3"`
	K4 uint32  `odm:"k4"`
	K5 int8    `odm:"k5"`
	K6 float64 `odm:"k6"`
	K7 uint8   `odm:"k7"`
}

type one struct {
	Yes bool `odm:"yes"`
}

type tiny struct {
	Kind uint8  `odm:"kind"`
	Text string `odm:"text"`
}

type blob struct {
	Head uint16 `odm:"head"`
	Blob []byte `odm:"blob"`
	Tail uint64 `odm:"tail"`
}

type each struct {
	Flag bool    `odm:"flag"`
	B1   uint8   `odm:"b1"`
	B2   uint16  `odm:"b2"`
	B4   uint32  `odm:"b4"`
	B8   uint64  `odm:"b8"`
	S1   int8    `odm:"s1"`
	S2   int16   `odm:"s2"`
	S4   int32   `odm:"s4"`
	S8   int64   `odm:"s8"`
	Half float32 `odm:"half"`
	Full float64 `odm:"full"`
	Text string  `odm:"text"`
	Blob []byte  `odm:"blob"`
}

type lists struct {
	F1 []bool    `odm:"f1"`
	U1 []uint8   `odm:"u1,[u8]"`
	U2 []uint16  `odm:"u2"`
	U4 []uint32  `odm:"u4"`
	U8 []uint64  `odm:"u8"`
	I1 []int8    `odm:"i1"`
	I2 []int16   `odm:"i2"`
	I4 []int32   `odm:"i4"`
	I8 []int64   `odm:"i8"`
	R4 []float32 `odm:"r4"`
	R8 []float64 `odm:"r8"`
}

// A tester runs one command on all vectors of a type.
type tester interface {
	vectors(v vectorsOfType) int
	write(v vectorsOfType, directory string, number int)
	read(v vectorsOfType, directory string, number int)
}

var testers = map[string]tester{
	"u8": typed[uint8]{odm.U8}, "u16": typed[uint16]{odm.U16}, "u32": typed[uint32]{odm.U32}, "u64": typed[uint64]{odm.U64},
	"i8": typed[int8]{odm.I8}, "i16": typed[int16]{odm.I16}, "i32": typed[int32]{odm.I32}, "i64": typed[int64]{odm.I64},
	"u53": typed[uint64]{odm.U64}, // Go has no u53.
	"f32": typed[float32]{odm.F32}, "f64": typed[float64]{odm.F64}, "bool": typed[bool]{odm.Bool},
	"str": typed[string]{odm.Str}, "bytes": typed[[]byte]{odm.Bytes}, "json": typed[any]{odm.JSON[any]()},
}

func addStruct[T any]() {
	codec := odm.Struct[T]()
	check(codec.Err())
	testers[codec.Name()] = typed[T]{codec}
}

// ---- values -----------------------------------------------------------------------------------------------------------

// set makes target what the vectors describe.
func set(target reflect.Value, text json.RawMessage) {
	var once string
	switch kind := target.Kind(); kind {
	case reflect.Interface, reflect.Bool:
		check(json.Unmarshal(text, target.Addr().Interface()))
	case reflect.String:
		once, count, err := repeated(text)
		check(err)
		target.SetString(strings.Repeat(once, count))
	case reflect.Struct:
		var fields map[string]json.RawMessage
		check(json.Unmarshal(text, &fields))
		for i := range target.NumField() {
			name, _, _ := strings.Cut(target.Type().Field(i).Tag.Get("odm"), ",")
			set(target.Field(i), fields[name])
		}
	case reflect.Slice:
		if text[0] != '[' { // bytes
			var decoded encoding
			check(json.Unmarshal(text, &decoded))
			target.SetBytes(decoded)
			return
		}
		var elements []json.RawMessage
		check(json.Unmarshal(text, &elements))
		target.Set(reflect.MakeSlice(target.Type(), len(elements), len(elements)))
		for i, element := range elements {
			set(target.Index(i), element)
		}
	default:
		check(json.Unmarshal(text, &once))
		switch bits := target.Type().Bits(); {
		case target.CanFloat():
			number, err := strconv.ParseFloat(once, bits)
			check(err)
			target.SetFloat(number)
		case target.CanInt():
			number, err := strconv.ParseInt(once, 10, bits)
			check(err)
			target.SetInt(number)
		default:
			number, err := strconv.ParseUint(once, 10, bits)
			check(err)
			target.SetUint(number)
		}
	}
}

// same tells whether two values are one: NaN is NaN, 0 is not -0, and a slice without elements may be nil.
func same(a, b reflect.Value) bool {
	switch {
	case a.CanFloat():
		x, y := a.Float(), b.Float()
		return x == y && math.Signbit(x) == math.Signbit(y) || math.IsNaN(x) && math.IsNaN(y)
	case a.Kind() == reflect.Slice:
		if a.Len() != b.Len() {
			return false
		}
		for i := range a.Len() {
			if !same(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case a.Kind() == reflect.Struct:
		for i := range a.NumField() {
			if !same(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

type typed[T any] struct{ codec odm.Codec[T] }

func (typed[T]) value(v vector) (value T) {
	set(reflect.ValueOf(&value).Elem(), v.Value)
	return value
}

func (typed[T]) same(a, b T) bool {
	return same(reflect.ValueOf(&a).Elem(), reflect.ValueOf(&b).Elem())
}

// ---- vectors ------------------------------------------------------------------------------------------------------------

func (t typed[T]) vectors(v vectorsOfType) int {
	if t.codec.Name() != v.Schema {
		fail("%s: the codec is called %s", v.Schema, t.codec.Name())
	}
	for _, vector := range v.Values {
		value := t.value(vector)
		made, err := t.codec.Append(nil, value)
		check(err)
		found, err := t.codec.Decode(made)
		if err != nil || !t.same(found, value) {
			fail("%s, %s: does not come back: %v %v", v.Type, vector.Name, found, err)
		}
		number := reflect.ValueOf(value)
		isNaN := number.IsValid() && number.CanFloat() && math.IsNaN(number.Float()) // Any NaN will do.
		if v.Type != "json" && !isNaN && !bytes.Equal(made, vector.Bytes) {
			fail("%s, %s: is written as %x", v.Type, vector.Name, made)
		}
	}
	for _, vector := range append(v.Values, v.ReadOnly...) {
		found, err := t.codec.Decode(vector.Bytes)
		if err != nil || !t.same(found, t.value(vector)) {
			fail("%s, %s: is read as %v %v", v.Type, vector.Name, found, err)
		}
	}
	if v.Type != "u53" {
		for _, vector := range v.Bad {
			t.refused(v.Type, vector)
		}
	}
	return len(v.Values) + len(v.ReadOnly) + len(v.Bad)
}

var fieldName = regexp.MustCompile(`(\w+):`)

func (t typed[T]) refused(name string, vector vector) {
	found, err := t.codec.Decode(vector.Bytes)
	if err == nil {
		fail("%s, %s: is not refused: %v", name, vector.Name, found)
	}
	if vector.Field == nil {
		return
	}
	for _, other := range fieldName.FindAllStringSubmatch(name, -1) {
		named := regexp.MustCompile(`\b` + other[1] + `\b`).MatchString(err.Error())
		if named != (other[1] == *vector.Field) {
			fail("%s, %s: '%v' does not name %s alone", name, vector.Name, err, *vector.Field)
		}
	}
}

// ---- maps -----------------------------------------------------------------------------------------------------------------

func place(directory string, number int, role string) string {
	return filepath.Join(directory, fmt.Sprintf("%d-%s", number, role))
}

func (t typed[T]) write(v vectorsOfType, directory string, number int) {
	options := &odm.Options{MustCreate: true}
	values, err := odm.Open(place(directory, number, "values"), odm.Str, t.codec, options)
	check(err)
	for _, vector := range v.Values {
		check(values.Put(vector.Name, t.value(vector)))
	}
	check(values.Close())
	if v.Type == "json" {
		return
	}
	keys, err := odm.Open(place(directory, number, "keys"), t.codec, odm.Str, options)
	check(err)
	for _, vector := range v.Values {
		check(keys.Put(t.value(vector), vector.Name))
	}
	check(keys.Close())
}

func (t typed[T]) read(v vectorsOfType, directory string, number int) {
	path := place(directory, number, "values")
	_, err := odm.Open(path, odm.U16, odm.Bytes, nil)
	schema := "str/" + v.Schema
	if !errors.Is(err, odm.ErrMismatch) || !strings.Contains(err.Error(), "u16/bytes") ||
		!strings.Contains(err.Error(), schema[:min(len(schema), 40)]) {
		fail("%s: opened as u16/bytes: %v", path, err)
	}
	options := &odm.Options{ReadOnly: true}
	values, err := odm.Open(path, odm.Str, t.codec, options)
	check(err)
	wanted := map[string]T{}
	for _, vector := range v.Values {
		wanted[vector.Name] = t.value(vector)
		found, ok, err := values.Get(vector.Name)
		if err != nil || !ok || !t.same(found, wanted[vector.Name]) {
			fail("%s in %s, %s: %v %v %v", v.Type, path, vector.Name, found, ok, err)
		}
	}
	walked := 0
	walk := values.Walk(odm.Start)
	for name, value := range walk.All() {
		if !t.same(value, wanted[name]) {
			fail("%s in %s, %s: %v in a walk", v.Type, path, name, value)
		}
		walked++
	}
	check(walk.Err())
	if walked != len(wanted) {
		fail("%s: a walk visits %d entries, not %d", path, walked, len(wanted))
	}
	check(values.Close())
	if v.Type != "json" {
		t.readKeys(v, place(directory, number, "keys"), options)
	}
}

func (t typed[T]) readKeys(v vectorsOfType, path string, options *odm.Options) {
	keys, err := odm.Open(path, t.codec, odm.Str, options)
	check(err)
	names := map[string]string{} // by the key's bytes: which was put last
	for _, vector := range v.Values {
		names[vector.keyBytes()] = vector.Name
	}
	for _, vector := range v.Values {
		name, ok, err := keys.Get(t.value(vector))
		if err != nil || !ok || name != names[vector.keyBytes()] {
			fail("%s in %s, key %s: %q %v %v", v.Type, path, vector.Name, name, ok, err)
		}
	}
	if keys.Len() != len(names) {
		fail("%s: %d keys, not %d", path, keys.Len(), len(names))
	}
	check(keys.Close())
}

// ---- live -----------------------------------------------------------------------------------------------------------------

const counters = 4

// addOne adds one in each way that the binding has.
func addOne(m *odm.Map[string, uint64], key string, way int) {
	switch way {
	case 0:
		_, err := odm.Add(m, key, 1)
		check(err)
	case 1:
		check(m.Update(key, func(number uint64, _ bool) (uint64, bool) { return number + 1, true }))
	default:
		for done := false; !done; {
			number, ok, err := m.Get(key)
			check(err)
			if ok {
				done, err = m.CompareAndSwap(key, number, number+1)
			} else {
				done, err = m.Insert(key, 1)
			}
			check(err)
		}
	}
}

func numberAt(m *odm.Map[string, uint64], key string) (number uint64, ok bool) {
	number, ok, err := m.Get(key)
	check(err)
	return number, ok
}

// meet waits until all processes have come here.
func meet(m *odm.Map[string, uint64], key string, all int) {
	addOne(m, key, 0)
	for number := uint64(0); number != uint64(all); number, _ = numberAt(m, key) {
		time.Sleep(200 * time.Microsecond)
	}
}

func live(path string, index, all, n int) {
	m, err := odm.OpenStringU64(path, nil)
	check(err)
	meet(m, "ready", all)
	for i := 1; i <= n; i++ {
		addOne(m, fmt.Sprint("shared ", i%counters), i%3)
		own := fmt.Sprintf("own %d %d", index, i)
		check(m.Put(own, uint64(i*(index+1))))
		if i%3 == 0 {
			if existed, err := m.Delete(own); err != nil || !existed {
				fail("delete %s: %v %v", own, existed, err)
			}
		}
	}
	meet(m, "written", all)
	for i := range counters {
		if number, _ := numberAt(m, fmt.Sprint("shared ", i)); number != uint64(all*n/counters) {
			fail("shared %d is %d, not %d", i, number, all*n/counters)
		}
	}
	for other := range all {
		for i := 1; i <= n; i++ {
			number, ok := numberAt(m, fmt.Sprintf("own %d %d", other, i))
			if ok != (i%3 != 0) || ok && number != uint64(i*(other+1)) {
				fail("own %d %d is %d %v", other, i, number, ok)
			}
		}
	}
	if count := counters + 2 + all*(n-n/3); m.Len() != count {
		fail("%d entries, not %d", m.Len(), count)
	}
	report, err := m.Verify(context.Background(), nil)
	if err != nil || report.BadRecords+report.BadSlots != 0 {
		fail("verify: %v %v", report, err)
	}
	check(m.Close())
}

func main() {
	addStruct[player]()
	addStruct[reordered]()
	addStruct[padded]()
	addStruct[one]()
	addStruct[tiny]()
	addStruct[blob]()
	addStruct[each]()
	addStruct[lists]()

	arguments := os.Args[1:]
	if len(arguments) == 5 && arguments[0] == "live" {
		var numbers [3]int
		for i := range numbers {
			var err error
			numbers[i], err = strconv.Atoi(arguments[2+i])
			check(err)
		}
		live(arguments[1], numbers[0], numbers[1], numbers[2])
		return
	}
	if len(arguments) < 2 || (len(arguments) == 2) != (arguments[0] == "vectors") {
		fail("usage: interop vectors|write|read VECTORS [DIR], or live MAP INDEX ALL N")
	}
	count := 0
	if arguments[0] == "write" {
		check(os.MkdirAll(arguments[2], 0o755))
	}
	for number, v := range load(arguments[1]) {
		t, ok := testers[v.Type]
		switch {
		case !ok:
			fail("no codec here is a %s", v.Type)
		case arguments[0] == "vectors":
			count += t.vectors(v)
		case arguments[0] == "write":
			t.write(v, arguments[2], number)
		case arguments[0] == "read":
			t.read(v, arguments[2], number)
		default:
			fail("there is no command %s", arguments[0])
		}
	}
	if arguments[0] == "vectors" {
		fmt.Printf("Go: %d vectors\n", count)
	}
}
