-- Encodings: what goes in comes out, the bytes are those all languages agree on, and what does not fit is refused by name.

local ffi = require("ffi")
local diskmap = require("opendiskmap")
local support = require("spec.support")

local message = support.message

--- Bytes as hexadecimal digits.
local function hex(bytes)
    return (bytes:gsub(".", function(byte)
        return ("%02x"):format(byte:byte())
    end))
end

--- The value bytes that a map with this encoding stores.
local function stored(encoding, value)
    local path = support.directory() .. "/map"
    local map = assert(diskmap.open(path, { key = "u8", value = encoding }))
    assert(map:put(1, value))
    map:close()
    local raw = assert(diskmap.open(path))
    local bytes = raw:get("\1")
    raw:close()
    return bytes
end

local function round_trip(encoding, value)
    local map = assert(diskmap.open(nil, { key = "u8", value = encoding }))
    assert(map:put(1, value))
    local got = map:get(1)
    map:close()
    return got
end

local function refused(encoding, value)
    local map = assert(diskmap.open(nil, { key = "u8", value = encoding }))
    local accepted, problem = pcall(map.put, map, 1, value)
    map:close()
    assert.is_false(accepted)
    return problem
end

describe("encodings", function()
    after_each(support.remove_directories)

    it("store the bytes that all languages agree on", function()
        local expected = {
            { "u8", 200, "c8" },
            { "u16", 0x1234, "3412" },
            { "u32", 0x12345678, "78563412" },
            { "u64", 0x0102030405060708ULL, "0807060504030201" },
            { "u53", 2 ^ 53 - 1, "ffffffffffff1f00" },
            { "i8", -1, "ff" },
            { "i16", -2, "feff" },
            { "i32", -2, "feffffff" },
            { "i64", -2, "feffffffffffffff" },
            { "f32", 1.5, "0000c03f" },
            { "f64", -0.5, "000000000000e0bf" },
            { "bool", true, "01" },
            { "bool", false, "00" },
            { "str", "h\195\169", "68c3a9" },
            { "bytes", "\0\255", "00ff" },
            { "str", "", "" },
        }
        for _, case in ipairs(expected) do
            assert.are.equal(case[3], hex(stored(case[1], case[2])), case[1])
        end
    end)

    it("give back the limits of every integer", function()
        for _, bits in ipairs({ 8, 16, 32 }) do
            assert.are.equal(2 ^ bits - 1, round_trip("u" .. bits, 2 ^ bits - 1))
            assert.are.equal(0, round_trip("u" .. bits, 0))
            assert.are.equal(-2 ^ (bits - 1), round_trip("i" .. bits, -2 ^ (bits - 1)))
            assert.are.equal(2 ^ (bits - 1) - 1, round_trip("i" .. bits, 2 ^ (bits - 1) - 1))
        end
        assert.is_true(round_trip("u64", 0xffffffffffffffffULL) == 0xffffffffffffffffULL)
        assert.is_true(round_trip("i64", -0x7fffffffffffffffLL - 1) == -0x7fffffffffffffffLL - 1)
        assert.is_true(round_trip("i64", 5ULL) == 5LL)
        assert.are.equal("cdata", type(round_trip("u64", 1)))
        assert.are.equal("number", type(round_trip("u53", 1)))
    end)

    it("give back floats, also those that are no numbers", function()
        assert.are.equal(0.1, round_trip("f64", 0.1))
        assert.are.equal(math.huge, round_trip("f64", math.huge))
        local nan = round_trip("f32", 0 / 0)
        assert.is_true(nan ~= nan)
    end)

    -- What LuaJIT takes for nil, a string or a table are bits of NaNs: such bits in a map came out as these.
    it("give back a number for every NaN, whatever its bits", function()
        local struct = diskmap.struct("single:f32,double:f64,list:[f64]")
        local path = support.directory() .. "/map"
        for _, bits in ipairs({ "\255\255\255\255\255\255\255\255", "\16\0\0\0\0\192\253\255", "\1\0\0\0\0\0\240\127" }) do
            local raw = assert(diskmap.open(path))
            assert(raw:put("f64", bits))
            assert(raw:put("f32", bits:sub(-4, -2) .. "\127"))
            assert(raw:put("struct", bits:sub(-4, -3) .. "\255\255\0\0\0\0" .. bits .. "\24\0\0\0\1\0\0\0" .. bits))
            raw:close()
            local found = {}
            for _, encoding in ipairs({ "f64", "f32" }) do
                raw = assert(diskmap.open(path))
                raw.decode_value = select(2, diskmap[encoding].codec())
                found[#found + 1] = raw:get(encoding)
                raw:close()
            end
            raw = assert(diskmap.open(path))
            raw.decode_value = select(2, struct.codec())
            local view = raw:get("struct")
            raw:close()
            for _, value in ipairs({ found[1], found[2], view.single, view.double, view.list[1] }) do
                assert.are.equal("number", type(value))
                assert.is_true(value ~= value)
            end
            assert.are.equal(2, #found)
        end
    end)

    it("find a float key by what Lua takes for equal", function()
        for _, encoding in ipairs({ "f32", "f64" }) do
            local map = assert(diskmap.open(nil, { key = encoding, value = "str" }))
            assert(map:put(-0.0, "zero"))
            assert(map:put(0 / 0, "no number"))
            assert.are.equal("zero", map:get(0))
            assert.are.equal("no number", map:get(-(0 / 0)))
            map:close()
        end
        local map = assert(diskmap.open(nil, { key = "f32", value = "str" }))
        for i = 1, 1000 do -- Numbers that are 0 when they are stored, also where the loop is compiled.
            assert(map:put(-1e-300 / i, "small"))
            assert(map:put(1e-300 * i, "small"))
        end
        assert(map:put(0, "zero"))
        assert.are.equal(1, map:count())
        assert.are.equal("zero", map:get(-1e-300))
        assert.is_nil(map:get(-1e-45))
        assert(map:put(0.1, "a tenth"))
        assert.are.equal("a tenth", map:get(0.1))
        map:close()
    end)

    it("refuse what does not fit, and say what would", function()
        assert.matches("an integer from 0 to 255 expected, got 256", refused("u8", 256), 1, true)
        assert.matches("an integer from 0 to 255 expected, got %-1", refused("u8", -1))
        assert.matches("an integer from %-128 to 127 expected, got 1%.5", refused("i8", 1.5))
        assert.matches("expected, got nan", refused("u32", 0 / 0):gsub("%-nan", "nan"))
        assert.matches("expected, got string", refused("u32", "1"))
        assert.matches("expected, got nil", refused("str", nil))
        assert.matches("a string expected, got 1", refused("str", 1))
        assert.matches("true or false expected, got 1", refused("bool", 1))
        assert.matches("a uint64_t, or an integer", refused("u64", 2 ^ 53))
        assert.matches("a uint64_t, or an integer", refused("u64", -1LL))
        assert.matches("an int64_t, or an integer", refused("i64", 2ULL ^ 63))
        assert.matches("expected, got ctype<struct odm_error>", refused("u64", ffi.new("odm_error")))
        assert.matches("from 0 to 2%^53 %- 1", refused("u53", 2 ^ 53))
    end)

    it("say of stored bytes that they are no such value", function()
        local path = support.directory() .. "/map"
        local map = assert(diskmap.open(path))
        map:put("\1", "123")
        map:put("\2", "\255\255\255\255\255\255\255\255")
        map:put("\3", "\2")
        map:close()
        -- The map has no schema that could be compared: the encodings are the program's own affair.
        local function as(encoding)
            local raw = assert(diskmap.open(path))
            raw.decode_value, raw.value = select(2, diskmap[encoding].codec()), diskmap[encoding]
            return raw
        end
        local value, problem, code = as("u64"):get("\1")
        assert.is_nil(value)
        assert.are.equal("the value is no u64: u64 has 8 bytes", problem)
        assert.are.equal(diskmap.E_MISMATCH, code)
        assert.matches("beyond 2%^53", message(as("u53"):get("\2")))
        assert.matches("a bool is 0 or 1", message(as("bool"):get("\3")))
    end)

    it("u53 is u64 to others", function()
        local path = support.directory() .. "/map"
        local map = assert(diskmap.open(path, { key = "u53", value = "u53" }))
        assert.are.equal("u64/u64", map:schema())
        map:put(1, 2)
        map:close()
        map = assert(diskmap.open(path, { key = "u64", value = "u64" }))
        assert.is_true(map:get(1) == 2ULL)
        map:close()
    end)

    it("of the program's own are stored under their name", function()
        local point = diskmap.codec({
            name = "point",
            encode = function(value)
                if type(value) ~= "table" then
                    return nil, "a point"
                end
                return value.x .. ";" .. value.y
            end,
            decode = function(text)
                local x, y = text:match("^(.-);(.*)$")
                if not x then
                    return nil, "no semicolon"
                end
                return { x = tonumber(x), y = tonumber(y) }
            end,
        })
        local path = support.directory() .. "/map"
        local map = assert(diskmap.open(path, { key = point, value = point }))
        assert.are.equal("point/point", map:schema())
        map:put({ x = 1, y = 2 }, { x = 3, y = 4 })
        assert.are.same({ x = 3, y = 4 }, map:get({ x = 1, y = 2 }))
        assert.matches("a point expected, got 7", message(pcall(map.get, map, 7)))
        map:close()
        local raw = assert(diskmap.open(path))
        raw:put("1;3", "?")
        raw:close()
        map = assert(diskmap.open(path, { key = point, value = point }))
        assert.are.equal("the value is no point: no semicolon", message(map:get({ x = 1, y = 3 })))
        map:close()
        for _, bad in ipairs({ "u64", "a/b", "" }) do
            assert.matches("a name of letters", message(pcall(diskmap.codec, {
                name = bad, encode = print, decode = print,
            })))
        end
    end)

    it("json holds what JSON can, where lua-cjson is there", function()
        if not pcall(require, "cjson") then
            return pending("lua-cjson is not installed")
        end
        local cjson = require("cjson")
        assert.are.same({ a = { 1, 2, "three" }, b = true }, round_trip("json", { a = { 1, 2, "three" }, b = true }))
        assert.are.equal(cjson.null, round_trip("json", cjson.null))
        assert.are.equal(false, round_trip("json", false))
        assert.are.equal("[1,2]", stored("json", { 1, 2 }))
        -- lua-cjson writes 14 digits, unless it is helped.
        local exact = { 2 ^ 53 - 1, 0.1 + 0.2, { third = 1 / 3, text = "\0010.30000000000000004\001" } }
        assert.are.same(exact, round_trip("json", exact))
        assert.are.equal("[0.1,9007199254740991]", stored("json", { 0.1, 2 ^ 53 - 1 }))
        assert.matches("something JSON can hold", refused("json", print))
        assert.matches("something JSON can hold", refused("json", nil))
        local path = support.directory() .. "/map"
        local raw = assert(diskmap.open(path))
        raw:put("x", "{")
        raw.decode_value, raw.value = select(2, diskmap.json.codec()), diskmap.json
        assert.matches("the value is no json", message(raw:get("x")))
        raw:close()
    end)

    it("json is compared by its value, not by its text", function()
        if not pcall(require, "cjson") then
            return pending("lua-cjson is not installed")
        end
        local cjson = require("cjson")
        local path = support.directory() .. "/map"
        local map, raw = assert(diskmap.open(path, { key = "str", value = "json" })), assert(diskmap.open(path))
        for _, text in ipairs({
            '{"one":1,"two":[1,{"x":null}],"three":"3","four":0.1,"five":{"six":{},"seven":[],"eight":false}}',
            ' [ 1e3, "\\u0041", [[]] ]', "null", "[]", "{}", "0.30000000000000004",
        }) do
            raw:put("x", text)
            local got, written = map:get("x"), map:get("x")
            if type(got) == "table" then -- The same names once more, put in another order.
                written = {}
                local names = {}
                for name in pairs(got) do
                    table.insert(names, 1, name)
                end
                for i = 1, 20 do
                    written["never there " .. i] = i
                    written["never there " .. i] = nil
                end
                for _, name in ipairs(names) do
                    written[name] = got[name]
                end
            end
            for _, other in ipairs({ { 1000, "A", { { 1 } } }, { 1000, "A" }, { 1 }, { a = cjson.null }, "null", 1, false }) do
                assert.is_false(map:compare_and_set("x", other, "another"))
            end
            assert.is_true(map:compare_and_set("x", written, "next"))
            assert.is_true(map:compare_and_set("x", "next", "last"))
        end
        raw:put("x", '{"a":1,"b":null}')
        assert.is_false(map:compare_and_set("x", { a = 1 }, 2))
        assert.is_false(map:compare_and_set("x", { a = 1, b = cjson.null, c = cjson.null }, 2))
        assert.is_true(map:compare_and_set("x", { b = cjson.null, a = 1 }, {}))
        assert.is_true(map:compare_and_set("x", {}, cjson.null))
        assert.is_true(map:compare_and_set("x", cjson.null, {}))
        raw:put("x", "{")
        local nothing, problem, code = map:compare_and_set("x", {}, 1)
        assert.is_nil(nothing)
        assert.matches("the value is no json", problem)
        assert.are.equal(diskmap.E_MISMATCH, code)
        map:close()
        raw:close()
    end)

    it("json does not round numbers that are names", function()
        if not pcall(require, "cjson") then
            return pending("lua-cjson is not installed")
        end
        for _, name in ipairs({ 2 ^ 53 - 1, 0.1 + 0.2, -1 / 3 }) do
            local problem = refused("json", { { [name] = 1 } })
            assert.matches("something JSON can hold (the name ", problem, 1, true)
            assert.matches("would be rounded: give it as a string", problem)
        end
        assert.are.equal('{"0.1":1}', stored("json", { [0.1] = 1 }))
        assert.are.equal('{"99999999999999":1}', stored("json", { [99999999999999] = 1 }))
    end)

    it("say of what is larger than a string of Lua that it can not be copied", function()
        -- Nobody looks at these bytes: the size comes first.
        local bytes, large = ffi.new("uint8_t[8]"), 2 ^ 31
        local own = diskmap.codec({ name = "own", encode = tostring, decode = tostring })
        for _, encoding in ipairs({ diskmap.str, diskmap.bytes, own, diskmap.struct("name:str") }) do
            local decode = select(2, encoding.codec())
            local value, problem = decode(bytes, large)
            assert.is_nil(value)
            assert.matches("it has 2147483648 bytes, and LuaJIT copies 2147483391 at most", problem)
        end
        local _, _, view = diskmap.struct("name:str").codec()
        ffi.cast("odm_slice *", bytes)[0] = { 8, large }
        assert.matches("field 'name': it has 2147483648 bytes", message(pcall(function()
            return view(bytes, large + 8, bytes).name
        end)))
    end)
end)
