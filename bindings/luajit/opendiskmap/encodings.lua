--- encodings.lua - Lua values to bytes and back. The bytes and the names are the same in every language.
--
-- An encoding is a table { name, schema_name, codec }. codec() makes a pair of functions with a buffer of their own:
--
--   encode(value)       -> bytes, size; or nil and what was expected. The bytes are good until the next encode of the pair
--   decode(bytes, size) -> value; or nil and what is wrong with the bytes. The value is a copy
--
-- and, where a value can be used in place, a third, view(bytes, size, owner) -> what Map:view hands to its function.
--
-- key_codec(), where there is one, makes the pair for keys instead. same(value, other), where there is one, compares two decoded
-- values of an encoding that may write equal ones as different bytes.

local ffi = require("ffi")
local band = require("bit").band

local cast, istype, new, typeof, string_at = ffi.cast, ffi.istype, ffi.new, ffi.typeof, ffi.string
local getmetatable, next, rawequal, setmetatable, type = getmetatable, next, rawequal, setmetatable, type

local encodings = {}

local bytes_pointer = typeof("const uint8_t *")
local uint64, int64 = typeof("uint64_t"), typeof("int64_t")
local SAFE_MAX = 2 ^ 53 - 1 -- the last integer that a Lua number tells from its neighbours
local COPY_MAX = 0x7ffffeff -- bytes of the longest string that LuaJIT makes; an array may have a few more
local I64_OVERFLOW = 0x8000000000000000ULL

--- What is lent where a value has no form of its own: a pointer, and the size.
local function view_bytes(bytes, size)
    return cast(bytes_pointer, bytes), size
end

--- Why a value of so many bytes can not be copied.
local function too_large(size)
    return ("it has %d bytes, and LuaJIT copies %d at most: read it in place, by Map:view"):format(size, COPY_MAX)
end

local function encoding(name, codec, schema_name)
    encodings[name] = { name = name, schema_name = schema_name or name, codec = codec }
    return encodings[name]
end

-- ---- numbers --------------------------------------------------------------------------------------------------------

--- A codec for `ctype` of `size` bytes: accept(value) -> the number or cdata to store; or nil and what was expected.
-- read(pointer, i) -> the value to hand out for element i of a ctype array; or nil and what is wrong with it. accept_key: accept
-- for keys, if that is another.
local function scalar(name, ctype, size, accept, read, schema_name, accept_key)
    local array, pointer = typeof(ctype .. "[1]"), typeof("const " .. ctype .. " *")
    local wrong_size = ("%s has %d byte%s"):format(name, size, size == 1 and "" or "s")
    local function codec(accept_value)
        local buffer = new(array)
        local function encode(value)
            local stored, expected = accept_value(value)
            if stored == nil then
                return nil, expected
            end
            buffer[0] = stored
            return buffer, size
        end
        local function decode(bytes, bytes_size)
            if bytes_size ~= size then
                return nil, wrong_size
            end
            return read(cast(pointer, bytes), 0)
        end
        return encode, decode, function(bytes)
            return cast(pointer, bytes)
        end
    end
    local made = encoding(name, function()
        return codec(accept)
    end, schema_name)
    if accept_key then
        function made.key_codec()
            return codec(accept_key)
        end
    end
    made.ctype, made.size, made.accept, made.read = ctype, size, accept, read
end

local function element(pointer, i)
    return pointer[i]
end

local function integer(name, ctype, size, low, high)
    local expected = ("an integer from %d to %d"):format(low, high)
    scalar(name, ctype, size, function(value)
        -- The last comparison is false for NaN and for fractions.
        if type(value) == "number" and value >= low and value <= high and value % 1 == 0 then
            return value
        end
        return nil, expected
    end, element)
end

integer("u8", "uint8_t", 1, 0, 2 ^ 8 - 1)
integer("u16", "uint16_t", 2, 0, 2 ^ 16 - 1)
integer("u32", "uint32_t", 4, 0, 2 ^ 32 - 1)
integer("i8", "int8_t", 1, -2 ^ 7, 2 ^ 7 - 1)
integer("i16", "int16_t", 2, -2 ^ 15, 2 ^ 15 - 1)
integer("i32", "int32_t", 4, -2 ^ 31, 2 ^ 31 - 1)

local u64_expected = "a uint64_t, or an integer from 0 to 2^53 - 1"
scalar("u64", "uint64_t", 8, function(value)
    if type(value) == "number" then
        if value >= 0 and value <= SAFE_MAX and value % 1 == 0 then
            return value
        end
    elseif istype(uint64, value) or (istype(int64, value) and value >= 0) then
        return value
    end
    return nil, u64_expected
end, element)

local i64_expected = "an int64_t, or an integer from -(2^53 - 1) to 2^53 - 1"
scalar("i64", "int64_t", 8, function(value)
    if type(value) == "number" then
        if value >= -SAFE_MAX and value <= SAFE_MAX and value % 1 == 0 then
            return value
        end
    elseif istype(int64, value) or (istype(uint64, value) and value < I64_OVERFLOW) then
        return value
    end
    return nil, i64_expected
end, element)

local u53_expected = "an integer from 0 to 2^53 - 1"
scalar("u53", "uint64_t", 8, function(value)
    if type(value) == "number" and value >= 0 and value <= SAFE_MAX and value % 1 == 0 then
        return value
    end
    return nil, u53_expected
end, function(pointer, i)
    local value = tonumber(pointer[i])
    if value > SAFE_MAX then
        return nil, "the number is beyond 2^53 - 1: read it as u64"
    end
    return value
end, "u64")

local function accept_number(value)
    if type(value) == "number" then
        return value
    end
    return nil, "a number"
end

-- LuaJIT keeps what is no number in the bits of NaNs: one that comes from outside could pass for any object, at any address.
-- So it is told by its bits, before it is loaded as a number, and handed out as LuaJIT's own.
local word_pointer = typeof("const uint32_t *")
local NAN = cast("const double *", new("uint64_t[1]", 0x7ff8000000000000ULL))[0]

--- As keys, 0 and -0 are one, and so are all NaN. `round` makes of a number what is stored: a small one may become 0.
local function accept_number_key(round)
    return function(value)
        if type(value) ~= "number" then
            return nil, "a number"
        elseif value ~= value then
            return NAN
        end
        value = round(value)
        return value == 0 and 0 or value
    end
end

local single = new("float[1]")

scalar("f32", "float", 4, accept_number, function(pointer, i)
    if band(cast(word_pointer, pointer)[i], 0x7fffffff) > 0x7f800000 then
        return NAN
    end
    return pointer[i]
end, nil, accept_number_key(function(value)
    single[0] = value
    return single[0]
end))

scalar("f64", "double", 8, accept_number, function(pointer, i)
    local words = cast(word_pointer, pointer)
    local high = band(words[2 * i + 1], 0x7fffffff)
    if high >= 0x7ff00000 and (high > 0x7ff00000 or words[2 * i] ~= 0) then
        return NAN
    end
    return pointer[i]
end, nil, accept_number_key(function(value)
    return value
end))

scalar("bool", "uint8_t", 1, function(value)
    if type(value) == "boolean" then
        return value and 1 or 0
    end
    return nil, "true or false"
end, function(pointer, i)
    local stored = pointer[i]
    if stored > 1 then
        return nil, "a bool is 0 or 1"
    end
    return stored == 1
end)

-- ---- strings --------------------------------------------------------------------------------------------------------

local function string_codec()
    local function encode(value)
        if type(value) ~= "string" then
            return nil, "a string"
        end
        return value, #value
    end
    local function decode(bytes, size)
        if size > COPY_MAX then
            return nil, too_large(size)
        end
        return string_at(bytes, size)
    end
    return encode, decode, view_bytes
end

encoding("str", string_codec)
encoding("bytes", string_codec)

--- A codec of functions that make a string of a value and a value of a string.
local function text_codec(to_string, from_string)
    local function encode(value)
        local text, problem = to_string(value)
        if type(text) ~= "string" then
            return nil, problem or "something the codec can make a string of"
        end
        return text, #text
    end
    local function decode(bytes, size)
        if size > COPY_MAX then
            return nil, too_large(size)
        end
        local value, problem = from_string(string_at(bytes, size))
        if value == nil then
            return nil, problem or "the codec answered nil"
        end
        return value
    end
    return encode, decode, view_bytes
end

--- lua-cjson rounds numbers to 14 digits. Here are those that need more: as a string between marks; nil for any other value.
local function marked_number(value, mark)
    if type(value) ~= "number" or (value % 1 == 0 and value > -1e14 and value < 1e14) then
        return nil
    end
    for digits = 14, 17 do
        local text = ("%%.%dg"):format(digits):format(value)
        if tonumber(text) == value then
            return digits > 14 and mark .. text .. mark or nil
        end
    end
end

--- A value with all such numbers marked; the value itself if there are none. Not called for circles: they were refused before.
local function marked(value, mark)
    if type(value) ~= "table" then
        return marked_number(value, mark) or value
    end
    local changed
    for key, part in next, value do
        if marked_number(key, mark) then
            error(("the name %.17g would be rounded: give it as a string"):format(key), 0)
        end
        local other = marked(part, mark)
        if not rawequal(other, part) then
            changed = changed or {}
            changed[key] = other
        end
    end
    if not changed then
        return value
    end
    for key, part in next, value do
        if changed[key] == nil then
            changed[key] = part
        end
    end
    return setmetatable(changed, getmetatable(value)) -- which may say that it is an array
end

--- JSON text of a value, with every digit of its numbers.
local function json_text(cjson, value)
    local text = cjson.encode(value)
    local mark, written = "\1", "\\u0001"
    while text:find(written, 1, true) do -- There is a mark that no string of the value has.
        mark, written = mark .. "\1", written .. "\\u0001"
    end
    local exact = marked(value, mark)
    if rawequal(exact, value) then
        return text
    end
    return (cjson.encode(exact):gsub('"' .. written .. '([^"\\]*)' .. written .. '"', "%1"))
end

--- Whether two values that were read from JSON are the same. An empty list is read as an empty table.
local function same_json(value, other)
    if type(value) ~= "table" or type(other) ~= "table" then
        return value == other
    end
    for key, part in next, value do
        if not same_json(part, other[key]) then
            return false
        end
    end
    for key in next, other do
        if value[key] == nil then
            return false
        end
    end
    return true
end

-- A cjson of our own: what the program sets in the shared one (empty tables, depth) would change the bytes.
encoding("json", function()
    local present, cjson = pcall(require, "cjson")
    if not present then
        return nil, "the encoding json needs lua-cjson, and require('cjson') did not find it"
    end
    cjson = cjson.new()
    cjson.decode_invalid_numbers(false) -- NaN, Infinity and hexadecimal are no JSON.
    return text_codec(function(value)
        if value == nil then
            return nil, "something JSON can hold; for null take cjson.null"
        end
        local made, text = pcall(json_text, cjson, value)
        if made then
            return text
        end
        return nil, "something JSON can hold (" .. tostring(text) .. ")"
    end, function(text)
        local made, value = pcall(cjson.decode, text)
        if made then
            return value
        end
        return nil, tostring(value)
    end)
end)
encodings.json.same = same_json -- lua-cjson writes names in the order of the table, which is another one for each.

--- An encoding of one's own: `name` goes into the schema; encode(value) -> string, decode(string) -> value. Either may answer
-- nil and a message. They must not use the map that they encode for.
local function own(codec)
    if type(codec) ~= "table" or type(codec.encode) ~= "function" or type(codec.decode) ~= "function" then
        return nil, "a table { name =, encode =, decode = }"
    end
    local name = codec.name
    if type(name) ~= "string" or not name:find("^[%w_.-]+$") or encodings[name] then
        return nil, "a name of letters, digits, '_', '-' and '.' that no other encoding has"
    end
    return {
        name = name,
        schema_name = name,
        codec = function()
            return text_codec(codec.encode, codec.decode)
        end,
    }
end

return { named = encodings, own = own, COPY_MAX = COPY_MAX, too_large = too_large }
