-- Struct values of arbitrary bytes: anybody may have written them. Each field is what these bytes say, read in the plainest
-- way, or an error that names it. Nothing is read from beside the value.
--
-- ODM_TEST_FUZZ: how many values, for long runs. ODM_TEST_SEED: others; a failure shows the value.

local ffi = require("ffi")
local diskmap = require("opendiskmap")
local support = require("spec.support")

local values = tonumber(os.getenv("ODM_TEST_FUZZ")) or 3000
local seed = tonumber(os.getenv("ODM_TEST_SEED")) or 1

-- A field: name, offset, size of an element, its C type (nil: a str), and whether it is a slice.
local cases = {
    {
        struct = diskmap.struct("id:u32,name:str,alive:bool,scores:[f64],balance:i64"),
        value = { id = 7, name = "Ada", alive = true, scores = { 1, 2.5 }, balance = -3LL },
        size = 32,
        fields = {
            { "id", 0, 4, "uint32_t" },
            { "name", 4, 1, nil, true },
            { "alive", 12, 1, "bool" },
            { "scores", 16, 8, "double", true },
            { "balance", 24, 8, "int64_t" },
        },
    },
    {
        struct = diskmap.struct("a:[u16],b:[bool],c:bytes,d:[i64],e:[f32]"),
        value = { a = { 1, 2, 3 }, b = { true, false }, c = "\0\1", d = { -1LL }, e = { 1.5 } },
        size = 40,
        fields = {
            { "a", 0, 2, "uint16_t", true },
            { "b", 8, 1, "bool", true },
            { "c", 16, 1, nil, true },
            { "d", 24, 8, "int64_t", true },
            { "e", 32, 4, "float", true },
        },
    },
    {
        struct = diskmap.struct("x:f32,on:bool"),
        value = { x = 1.5, on = true },
        size = 8,
        whole = true,
        fields = { { "x", 0, 4, "float" }, { "on", 4, 1, "bool" } },
    },
}

local function u32_at(bytes, at)
    local a, b, c, d = bytes:byte(at + 1, at + 4)
    return a + b * 2 ^ 8 + c * 2 ^ 16 + d * 2 ^ 24
end

local function bytes_of_u32(number)
    local digits = {}
    for i = 1, 4 do
        digits[i] = string.char(number % 256)
        number = math.floor(number / 256)
    end
    return table.concat(digits)
end

local function with(bytes, at, part)
    return bytes:sub(1, at) .. part .. bytes:sub(at + #part + 1)
end

--- The bytes of a good value, damaged.
local function hostile(case)
    local random, bytes = math.random, case.good
    if random(8) == 1 then
        bytes = ("\0"):rep(random(96))
    end
    if random(6) == 1 then
        bytes = bytes:sub(1, random(0, #bytes))
    end
    if random(6) == 1 then
        bytes = bytes .. string.char(random(0, 255)):rep(random(0, 24))
    end
    for _ = 1, random(0, 3) do
        if #bytes > 0 then
            bytes = with(bytes, random(0, #bytes - 1), string.char(random(0, 255)))
        end
    end
    for _ = 1, #bytes >= case.size and random(0, 2) or 0 do
        local size = #bytes
        local words = { 0, 1, 8, case.size, size - 8, size, size + 1, 2 ^ 29 + 1, 2 ^ 31, 2 ^ 32 - 8, 2 ^ 32 - 1 }
        words[#words + 1] = random(0, 64)
        bytes = with(bytes, random(0, case.size / 4 - 1) * 4, bytes_of_u32(words[random(#words)] % 2 ^ 32))
    end
    return bytes
end

local function element(bytes, at, size, ctype)
    if ctype == "bool" then
        local byte = bytes:byte(at + 1)
        if byte > 1 then
            return nil
        end
        return byte == 1
    end
    local number = ffi.new(ctype .. "[1]")
    ffi.copy(number, bytes:sub(at + 1, at + size), size)
    -- LuaJIT takes some NaNs for other things than numbers, so they are told by their bits.
    if ctype == "float" and u32_at(bytes, at) % 2 ^ 31 > 0x7f800000 then
        return 0 / 0
    elseif ctype == "double" then
        local high = u32_at(bytes, at + 4) % 2 ^ 31
        if high > 0x7ff00000 or (high == 0x7ff00000 and u32_at(bytes, at) ~= 0) then
            return 0 / 0
        end
    end
    return number[0]
end

--- What a field of these bytes is: a scalar or string, or a table of elements; nil if they are none of it.
local function expected(bytes, field)
    local offset, size, ctype, is_slice = field[2], field[3], field[4], field[5]
    if not is_slice then
        return element(bytes, offset, size, ctype)
    end
    local from, count = u32_at(bytes, offset), u32_at(bytes, offset + 4)
    if from + count * size > #bytes or from % size ~= 0 then
        return nil
    elseif not ctype then
        return bytes:sub(from + 1, from + count)
    end
    local elements = {}
    for i = 1, count do
        elements[i] = element(bytes, from + (i - 1) * size, size, ctype)
        if elements[i] == nil then
            return nil
        end
    end
    return elements
end

--- NaN is as good as NaN.
local function same(a, b)
    if type(a) == "table" and type(b) == "table" then
        if #a ~= #b then
            return false
        end
        for i = 1, #a do
            if not same(a[i], b[i]) then
                return false
            end
        end
        return true
    end
    return a == b or (a ~= a and b ~= b)
end

local function shown(bytes)
    return (bytes:gsub(".", function(byte)
        return ("%02x"):format(byte:byte())
    end))
end

local function check_view(view, bytes, case)
    local where = case.struct.name .. " of " .. shown(bytes) .. ", field "
    local all_are_good = true
    for _, field in ipairs(case.fields) do
        local name = field[1]
        local wanted = expected(bytes, field)
        local read, have = pcall(function()
            local value = view[name]
            return field[4] and field[5] and value:to_table() or value
        end)
        if wanted == nil then
            all_are_good = false
            assert(not read, where .. name .. " was given")
            assert(have:find("field '" .. name .. "'", 1, true), where .. name .. ": " .. have)
        else
            assert(read, where .. name .. ": " .. tostring(have))
            assert(same(have, wanted), where .. name .. " is another value")
        end
    end
    assert(pcall(view.to_table, view) == all_are_good, where .. "to_table")
end

describe("a struct of arbitrary bytes", function()
    after_each(support.remove_directories)

    it("is what they say, field by field, or an error that names the field", function()
        math.randomseed(seed)
        for _, case in ipairs(cases) do
            local path = support.directory() .. "/map"
            case.map = assert(diskmap.open(path, { key = "u8", value = case.struct }))
            case.raw = assert(diskmap.open(path))
            assert(case.map:put(1, case.value))
            case.good = case.raw:get("\1")
        end
        for _ = 1, values do
            local case = cases[math.random(#cases)]
            local bytes = hostile(case)
            assert(case.raw:put("\1", bytes))
            local fits = #bytes == case.size or (#bytes > case.size and not case.whole)
            local copy, problem, code = case.map:get(1)
            if fits then
                check_view(copy, bytes, case)
                local viewed = false
                assert(case.map:view(1, function(view) -- where it lies, beside other records
                    check_view(view, bytes, case)
                    viewed = true
                    return true
                end))
                assert(viewed)
            else
                assert(copy == nil and code == diskmap.E_MISMATCH, shown(bytes))
                assert(problem:find("the value is no struct{", 1, true), problem)
            end
        end
        for _, case in ipairs(cases) do
            case.map:close()
            case.raw:close()
        end
    end)
end)
