#!/usr/bin/env python3
"""vectors.py - makes vectors.json: values, and the bytes that every language must make of them and read from them.

    python3 vectors.py > vectors.json        vectors.py --check compares the two instead

Knows nothing of the bindings: the bytes come from Python's struct module and from the rules in README.md, which also says
what vectors.json holds.
"""

import json
import pathlib
import struct
import sys

NUMBERS = {
    "u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i8": "b", "i16": "h", "i32": "i", "i64": "q",
    "f32": "f", "f64": "d", "bool": "?",
}
SLICE = "II"  # odm_slice: two u32
QUIET_NAN = {"f32": "0000c07f", "f64": "000000000000f87f"}


# ---- bytes ----------------------------------------------------------------------------------------------------------

def number(type_, value):
    if type_ in QUIET_NAN:
        return bytes.fromhex(QUIET_NAN[type_]) if value == "nan" else struct.pack("<" + NUMBERS[type_], float(value))
    return struct.pack("<" + NUMBERS[type_], value if type_ == "bool" else int(value))


def width(type_):
    return struct.calcsize("<" + NUMBERS[type_])


def fields_of(type_):
    return [part.split(":") for part in type_[len("struct{"):-1].split(",")]


def payload(type_, value):
    """The bytes and the count of a str, bytes or [T] field."""
    if type_ == "str":
        encoded = value.encode()
        return encoded, len(encoded)
    if type_ == "bytes":
        return bytes.fromhex(value), len(value) // 2
    return b"".join(number(type_[1:-1], element) for element in value), len(value)


def struct_bytes(type_, value):
    """As C lays it out: struct.pack with @ pads like the compiler, and a '0Q' at the end pads to a multiple of 8."""
    layout, parts, payloads = "", [], b""
    fields = fields_of(type_)
    slices = any(kind not in NUMBERS for _, kind in fields)
    aligned_to = max(4 if kind not in NUMBERS else width(kind) for _, kind in fields)
    for _, kind in fields:
        layout += NUMBERS[kind] if kind in NUMBERS else SLICE
    layout += {1: "", 2: "0H", 4: "0I", 8: "0Q"}[aligned_to]
    fixed = struct.calcsize("@" + layout)
    for name, kind in fields:
        given = value[name]
        if kind in NUMBERS:
            parts.append(struct.unpack("<" + NUMBERS[kind], number(kind, given))[0])
            continue
        encoded, count = payload(kind, given)
        end = fixed + len(payloads)
        payloads += bytes(-end % 8)
        parts += [fixed + len(payloads), count]
        payloads += encoded
    assert slices or payloads == b""
    return struct.pack("@" + layout, *parts) + payloads


def encoded(type_, value):
    if isinstance(value, dict) and "repeat" in value:
        return {"repeat": encoded(type_, value["repeat"]), "count": value["count"]}
    if type_ == "str":
        return value.encode().hex()
    if type_ == "bytes":
        return value
    if type_ == "json":
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode().hex()
    if type_.startswith("struct{"):
        return struct_bytes(type_, value).hex()
    return number("u64" if type_ == "u53" else type_, value).hex()


# ---- what there is to say ---------------------------------------------------------------------------------------------

TYPES = []


def type_(name, values, read_only=(), bad=(), schema=None):
    made = {"type": name, "schema": schema or name}
    made["values"] = []
    for label, value in values:
        vector = {"name": label, "value": value, "bytes": encoded(name, value)}
        if name in QUIET_NAN and value == "-0":
            vector["key"] = encoded(name, "0")
        made["values"].append(vector)
    made["read_only"] = [{"name": label, "value": value, "bytes": hexed} for label, value, hexed in read_only]
    made["bad"] = [{"name": label, "field": field, "bytes": hexed} for label, field, hexed in bad]
    TYPES.append(made)


def integers(name):
    bits = 8 * width(name)
    low, high = (0, 2**bits - 1) if name[0] == "u" else (-2**(bits - 1), 2**(bits - 1) - 1)
    values = [("zero", "0"), ("one", "1"), ("lowest", str(low)), ("highest", str(high)),
              ("each byte another", str(int.from_bytes(bytes(range(1, bits // 8 + 1)), "little")))]
    if low < 0:
        values.append(("minus one", "-1"))
    if bits == 64:
        values.append(("beyond a double", str(2**53 + 1)))
    unique = [v for i, v in enumerate(values) if v[1] not in [w[1] for w in values[:i]]]
    type_(name, unique, bad=[("no byte", None, ""), ("a byte too few", None, "01" * (bits // 8 - 1)),
                             ("a byte too many", None, "01" * (bits // 8 + 1))])


for integer in ("u8", "u16", "u32", "u64", "i8", "i16", "i32", "i64"):
    integers(integer)

type_("u53", [("zero", "0"), ("one", "1"), ("highest", str(2**53 - 1)), ("beyond 32 bits", str(2**32 + 7))], schema="u64",
      bad=[("2 ** 53", None, number("u64", 2**53).hex()), ("the highest u64", None, "ff" * 8), ("a u32", None, "01000000")])

FLOATS = [("zero", "0"), ("minus zero", "-0"), ("one", "1"), ("minus one and a half", "-1.5"), ("infinity", "inf"),
          ("minus infinity", "-inf"), ("not a number", "nan")]
type_("f32", FLOATS + [("highest", "3.4028234663852886e+38"), ("lowest subnormal", "1.401298464324817e-45"),
                       ("a tenth, rounded", "0.10000000149011612")],
      read_only=[("NaN, negative", "nan", "0000c0ff"), ("NaN, signalling", "nan", "0100807f"), ("NaN, all ones", "nan", "ff" * 4)],
      bad=[("no byte", None, ""), ("an f64", None, "00" * 8), ("a byte too few", None, "00" * 3)])
type_("f64", FLOATS + [("highest", "1.7976931348623157e+308"), ("lowest subnormal", "5e-324"), ("a tenth", "0.1"),
                       ("2 ** 53 + 2", "9007199254740994")],
      read_only=[("NaN, negative", "nan", "000000000000f8ff"), ("NaN, signalling", "nan", "010000000000f07f"),
                 ("NaN, like a pointer of LuaJIT", "nan", "1000000000c0fdff"), ("NaN, all ones", "nan", "ff" * 8)],
      bad=[("no byte", None, ""), ("an f32", None, "00" * 4), ("a byte too many", None, "00" * 9)])
type_("bool", [("false", False), ("true", True)],
      bad=[("two", None, "02"), ("all ones", None, "ff"), ("no byte", None, ""), ("two bytes", None, "0100")])

TEXTS = [("empty", ""), ("ASCII", "hello"), ("a zero inside", "a\0b"), ("two bytes a character", "äöü"),
         ("three", "日本語"), ("beyond the BMP", "a😀𝄞z"), ("combining", "e\u0301"), ("a BOM", "\ufeffx"),
         ("a line of 49", "0123456789" * 4 + "012345678"), ("64 KiB", {"repeat": "0123456789abcdef", "count": 4096}),
         ("64 KiB beyond ASCII", {"repeat": "é😀日本語x", "count": 4096})]
type_("str", TEXTS)
type_("bytes", [("empty", ""), ("zero", "00"), ("each byte", bytes(range(256)).hex()), ("no UTF-8", "fffec080"),
                ("64 KiB", {"repeat": "000102fdfeff7f80", "count": 8192})])

type_("json", [("null", None), ("false", False), ("true", True), ("zero", 0), ("negative", -1.5), ("exponent", 1e300),
               ("text", "a\"b\\c/d\n"), ("no text", ""), ("beyond the BMP", "😀\u2028<&>"), ("list", [1, [2, [3, "x"]], True]),
               ("object", {"name": "Ada", "tags": ["x", "y"], "nested": {"deep": {"er": [1]}}}), ("null inside", {"a": None}),
               ("the highest safe integer", 2**53 - 1), ("17 digits", 0.1 + 0.2), ("15 and 16 digits", [123456789012345, -0.1234567890123456]),
               ("digits that are a text", ["\1" + "0.30000000000000004" + "\1", {"x": 1 / 3}])],
      read_only=[("blanks", {"a": [1, 2]}, b' { "a" :\n[ 1 ,\t2 ] } '.hex()), ("escapes", "é😀/", b'"\\u00e9\\ud83d\\ude00\\/"'.hex()),
                 ("an empty list", [], b"[]".hex()), ("an empty object", {}, b"{}".hex())],
      bad=[("no byte", None, ""), ("NaN", None, b"[NaN]".hex()), ("nan", None, b"[nan]".hex()), ("Infinity", None, b"[Infinity]".hex()),
           ("hexadecimal", None, b"[0x10]".hex()), ("a comma too many", None, b"[1,]".hex()), ("something behind", None, b"1 2".hex()),
           ("not closed", None, b'{"a":1'.hex())])

# ---- structs ----------------------------------------------------------------------------------------------------------


def changed(type_name, value, field, offset=None, count=None, fixed=None):
    """The encoding with another slice, or another byte at `fixed`."""
    data = bytearray(struct_bytes(type_name, value))
    at, place = 0, {}
    for name, kind in fields_of(type_name):
        size, alignment = (width(kind), width(kind)) if kind in NUMBERS else (8, 4)
        at += -at % alignment
        place[name] = at
        at += size
    if offset is not None:
        struct.pack_into("<I", data, place[field], offset)
    if count is not None:
        struct.pack_into("<I", data, place[field] + 4, count)
    if fixed is not None:
        data[place[field]] = fixed
    return data.hex()


PLAYER = "struct{id:u32,name:str,scores:[f64]}"
ADA = {"id": "7", "name": "Ada 😀", "scores": ["1", "2.5", "-0", "inf"]}
NOBODY = {"id": "0", "name": "", "scores": []}
ada = struct_bytes(PLAYER, ADA)
FIXED = 20
type_(PLAYER, [("filled", ADA), ("empty", NOBODY), ("one score", {"id": "4294967295", "name": "", "scores": ["0.1"]}),
               ("no score", {"id": "1", "name": "no score", "scores": []}),
               ("a long name", {"id": "2", "name": "long " * 4000, "scores": ["1"]})],
      read_only=[
          ("slices of nothing at 0", NOBODY, "00" * FIXED),
          ("slices of nothing at the end", NOBODY, struct.pack("<IIIII", 0, FIXED, 0, 16, 0).hex()),
          ("payloads in another order", {"id": "1", "name": "xyz", "scores": ["1"]},
           (struct.pack("<IIIII", 1, 32, 3, 24, 1) + bytes(4) + struct.pack("<d", 1) + b"xyz").hex()),
          ("something behind", {"id": "1", "name": "xyz", "scores": []},
           (struct.pack("<IIIII", 1, 24, 3, 24, 0) + bytes(4) + b"xyz" + b"more of it").hex()),
          ("one payload for two", {"id": "1", "name": "\0" * 8, "scores": ["0"]},
           (struct.pack("<IIIII", 1, 24, 8, 24, 1) + bytes(4) + bytes(8)).hex()),
          ("a payload in the fixed part", {"id": "97", "name": "a", "scores": []},
           struct.pack("<IIIII", 97, 0, 1, 0, 0).hex()),
      ],
      bad=[
          ("no byte", None, ""),
          ("shorter than the fixed part", None, ada[:FIXED - 1].hex()),
          ("the end is missing", "scores", ada[:-1].hex()),
          ("name begins behind the value", "name", changed(PLAYER, ADA, "name", offset=len(ada) + 1, count=0)),
          ("name ends behind the value", "name", changed(PLAYER, ADA, "name", count=len(ada) - 24 + 1)),
          ("name begins at the highest offset", "name", changed(PLAYER, ADA, "name", offset=2**32 - 1, count=1)),
          ("name is the longest", "name", changed(PLAYER, ADA, "name", count=2**32 - 1)),
          ("offset and count wrap around", "name", changed(PLAYER, ADA, "name", offset=2**32 - 8, count=16)),
          ("scores end behind the value", "scores", changed(PLAYER, ADA, "scores", count=5)),
          ("the bytes of scores wrap around", "scores", changed(PLAYER, ADA, "scores", count=2**29 + 1)),
          ("scores are the longest", "scores", changed(PLAYER, ADA, "scores", offset=8, count=2**32 - 1)),
          ("scores are at an odd place", "scores", changed(PLAYER, ADA, "scores", offset=33, count=1)),
          ("scores are at half a place", "scores", changed(PLAYER, ADA, "scores", offset=36, count=1)),
      ])

type_("struct{scores:[f64],name:str,id:u32}", [("filled", ADA), ("empty", NOBODY)])

PADDED = "struct{k1:u8,k2:u16,k3:bool,k4:u32,k5:i8,k6:f64,k7:u8}"
PADDED_VALUE = {"k1": "1", "k2": "515", "k3": True, "k4": "67438087", "k5": "-8", "k6": "-0.5", "k7": "255"}
padded = struct_bytes(PADDED, PADDED_VALUE)
type_(PADDED, [("filled", PADDED_VALUE), ("zeros", {name: False if kind == "bool" else "0" for name, kind in fields_of(PADDED)})],
      read_only=[("something in the padding", PADDED_VALUE, (padded[:1] + b"\xaa" + padded[2:-7] + b"\xbb" * 7).hex())],
      bad=[("the padding at the end is missing", None, padded[:-7].hex()), ("a byte too many", None, (padded + b"\0").hex()),
           ("k3 is two", "k3", changed(PADDED, PADDED_VALUE, "k3", fixed=2))])

type_("struct{yes:bool}", [("true", {"yes": True}), ("false", {"yes": False})], bad=[("two", "yes", "02"), ("no byte", None, "")])

TINY = "struct{kind:u8,text:str}"  # 12 bytes, so that the payload is not where the fixed part ends.
type_(TINY, [("filled", {"kind": "3", "text": "t"}), ("empty", {"kind": "0", "text": ""})])

type_("struct{head:u16,blob:bytes,tail:u64}",
      [("filled", {"head": "258", "blob": "00ff80", "tail": "18446744073709551615"}), ("empty", {"head": "0", "blob": "", "tail": "0"})],
      bad=[("blob ends behind the value", "blob",
            changed("struct{head:u16,blob:bytes,tail:u64}", {"head": "1", "blob": "00ff80", "tail": "2"}, "blob", count=4))])

EACH = "struct{flag:bool,b1:u8,b2:u16,b4:u32,b8:u64,s1:i8,s2:i16,s4:i32,s8:i64,half:f32,full:f64,text:str,blob:bytes}"
type_(EACH, [
    ("filled", {"flag": True, "b1": "255", "b2": "65535", "b4": "4294967295", "b8": "18446744073709551615", "s1": "-128",
                "s2": "-32768", "s4": "-2147483648", "s8": "-9223372036854775808", "half": "-1.5", "full": "0.1",
                "text": "日本語", "blob": "00ff"}),
    ("zeros", {"flag": False, "b1": "0", "b2": "0", "b4": "0", "b8": "0", "s1": "0", "s2": "0", "s4": "0", "s8": "0",
               "half": "0", "full": "0", "text": "", "blob": ""})])

LISTS = "struct{f1:[bool],u1:[u8],u2:[u16],u4:[u32],u8:[u64],i1:[i8],i2:[i16],i4:[i32],i8:[i64],r4:[f32],r8:[f64]}"
LISTS_VALUE = {"f1": [True, False, True], "u1": ["0", "255"], "u2": ["1", "65535", "2"], "u4": ["4294967295"],
               "u8": ["0", "18446744073709551615", "9007199254740993"], "i1": ["-128", "127", "0"], "i2": ["-32768"],
               "i4": ["-1", "2147483647"], "i8": ["-9223372036854775808", "-1"], "r4": ["0.5", "-inf", "-0"], "r8": ["0.1"]}
LISTS_EMPTY = {name: [] for name, _ in fields_of(LISTS)}
lists = struct_bytes(LISTS, LISTS_VALUE)


def lists_bad():
    yield "f1 has a two", "f1", (lists[:88] + b"\x02" + lists[89:]).hex()
    for name, kind in fields_of(LISTS):
        yield f"{name} ends behind the value", name, changed(LISTS, LISTS_VALUE, name, count=len(lists) + 1)
        if width(kind[1:-1]) > 1:
            yield f"{name} is misaligned", name, changed(LISTS, LISTS_VALUE, name, offset=89, count=1)


type_(LISTS, [("filled", LISTS_VALUE), ("empty", LISTS_EMPTY), ("one of many", dict(LISTS_EMPTY, i2=["7"], r8=["1", "2"]))],
      bad=list(lists_bad()))

# ---- output -------------------------------------------------------------------------------------------------------------


def text():
    lines = ["[\n"]
    for i, made in enumerate(TYPES):
        lines.append("{\n")
        lines.append(f'  "type": {json.dumps(made["type"])},\n  "schema": {json.dumps(made["schema"])},\n')
        for j, part in enumerate(("values", "read_only", "bad")):
            rows = ",\n".join("    " + json.dumps(row) for row in made[part])
            lines.append(f'  "{part}": [' + (f"\n{rows}\n  " if rows else "") + ("],\n" if j < 2 else "]\n"))
        lines.append("},\n" if i < len(TYPES) - 1 else "}\n")
    lines.append("]\n")
    return "".join(lines)


def main():
    if sys.argv[1:] == ["--check"]:
        committed = pathlib.Path(__file__).with_name("vectors.json").read_text(encoding="ascii")
        if committed != text():
            sys.exit("vectors.json is not what vectors.py makes: change vectors.py, then make it anew")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        sys.stdout.write(text())


main()
