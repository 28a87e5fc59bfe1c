--- interop.lua - the LuaJIT side of the tests between languages. Its commands are those of interop.c.
--
--     luajit interop.lua vectors|write|read VECTORS [DIR]
--     luajit interop.lua live MAP INDEX ALL N

local ffi = require("ffi")
local diskmap = require("opendiskmap")
local cjson = require("cjson")

ffi.cdef("int mkdir(const char *, unsigned); int usleep(unsigned);")

local function fail(format, ...)
    io.stderr:write("FAILED (LuaJIT): ", select("#", ...) > 0 and format:format(...) or format, "\n")
    os.exit(1)
end

-- ---- values -----------------------------------------------------------------------------------------------------------

local function load_vectors(path)
    return cjson.decode(assert(io.open(path)):read("*a"))
end

local function from_hex(hex)
    return (hex:gsub("..", function(digits)
        return string.char(tonumber(digits, 16))
    end))
end

--- Bytes as the vectors give them: hexadecimal, or { repeat, count }.
local function bytes_of(given)
    return type(given) == "table" and from_hex(given["repeat"]):rep(given.count) or from_hex(given)
end

local function encoding_of(kind)
    return kind:find("^struct{") and diskmap.struct(kind) or diskmap[kind]
end

--- 64 bits do not go through a number.
local function integer(kind, text)
    if kind ~= "u64" and kind ~= "i64" then
        return tonumber(text)
    end
    local value, negative = kind == "u64" and 0ULL or 0LL, text:sub(1, 1) == "-"
    for digit in text:gmatch("%d") do
        value = value * 10 + (negative and -tonumber(digit) or tonumber(digit))
    end
    return value
end

--- The Lua value of one that the vectors describe.
local function value_of(kind, given)
    if kind == "json" or kind == "bool" or (kind == "str" and type(given) == "string") then
        return given
    elseif kind == "str" then
        return given["repeat"]:rep(given.count)
    elseif kind == "bytes" then
        return bytes_of(given)
    elseif kind:find("^%[") then
        local list = {}
        for i, element in ipairs(given) do
            list[i] = value_of(kind:sub(2, -2), element)
        end
        return list
    elseif kind:find("^struct{") then
        local value = {}
        for name, field_kind in kind:sub(8, -2):gmatch("([%w_]+):([%w_%[%]]+)") do
            value[name] = value_of(field_kind, given[name])
        end
        return value
    elseif kind:find("^f") then
        return given == "nan" and 0 / 0 or given == "-0" and -0.0 or tonumber((given:gsub("inf", "1e999")))
    end
    return integer(kind, given)
end

--- NaN is NaN; 0 is not -0.
local function same(a, b)
    if type(a) ~= type(b) then
        return false
    elseif type(a) == "number" then
        return (a ~= a and b ~= b) or (a == b and 1 / a == 1 / b)
    elseif type(a) == "cdata" then
        return tostring(a) == tostring(b)
    elseif type(a) ~= "table" then
        return a == b
    end
    for key, value in pairs(a) do
        if not same(value, b[key]) then
            return false
        end
    end
    for key in pairs(b) do
        if a[key] == nil then
            return false
        end
    end
    return true
end

--- What was decoded, with every field of a view read.
local function plain(kind, value)
    return kind:find("^struct{") and value:to_table() or value
end

-- ---- vectors ------------------------------------------------------------------------------------------------------------

--- Runs every check through a map: encodings have no life of their own in this binding. `raw` shows what lies in it.
local function scratch_map(kind)
    local path = os.tmpname()
    os.remove(path)
    local map = assert(diskmap.open(path, { key = "str", value = encoding_of(kind) }))
    local raw = assert(diskmap.open(path)) -- without encodings: strings
    return map, raw, path
end

local function decoded(kind, map)
    local ok, value, problem = pcall(function()
        local value, problem = map:get("x")
        if value == nil then
            return nil, problem
        end
        return plain(kind, value)
    end)
    if not ok then
        return nil, value
    end
    return value, problem
end

local function check_bad(kind, vector, map, raw)
    assert(raw:put("x", bytes_of(vector.bytes)))
    local value, problem = decoded(kind, map)
    if value ~= nil or not problem then
        fail("%s, %s: is not refused", kind, vector.name)
    end
    if vector.field ~= cjson.null then
        for name in kind:sub(8, -2):gmatch("([%w_]+):") do
            local named = problem:find("%f[%w_]" .. name .. "%f[^%w_]") ~= nil
            if named ~= (name == vector.field) then
                fail("%s, %s: '%s' does not name %s alone", kind, vector.name, problem, vector.field)
            end
        end
    end
end

local function vectors(path)
    local count = 0
    for _, kind_vectors in ipairs(load_vectors(path)) do
        local kind = kind_vectors.type
        local map, raw, place = scratch_map(kind)
        if map:schema() ~= "str/" .. kind_vectors.schema then
            fail("%s: the schema is %s", kind, map:schema())
        end
        for _, part in ipairs({ "values", "read_only" }) do
            for _, vector in ipairs(kind_vectors[part]) do
                local value, bytes = value_of(kind, vector.value), bytes_of(vector.bytes)
                assert(raw:put("x", bytes))
                local found, problem = decoded(kind, map)
                if found == nil or not same(found, value) then
                    fail("%s, %s: is read as another value %s", kind, vector.name, tostring(problem))
                end
                if part == "values" then
                    assert(map:put("x", value))
                    if kind ~= "json" and value == value and raw:get("x") ~= bytes then
                        fail("%s, %s: is written otherwise", kind, vector.name)
                    end
                    if not same(decoded(kind, map), value) then
                        fail("%s, %s: does not come back", kind, vector.name)
                    end
                end
                count = count + 1
            end
        end
        for _, vector in ipairs(kind_vectors.bad) do
            check_bad(kind, vector, map, raw)
            count = count + 1
        end
        map:close()
        raw:close()
        os.execute("rm -rf '" .. place .. "'")
    end
    print(("LuaJIT: %d vectors"):format(count))
end

-- ---- maps -----------------------------------------------------------------------------------------------------------------

local function open(directory, number, role, kind, options)
    options.key = role == "keys" and encoding_of(kind) or "str"
    options.value = role == "keys" and "str" or encoding_of(kind)
    return assert(diskmap.open(("%s/%d-%s"):format(directory, number, role), options))
end

local function write_maps(path, directory)
    ffi.C.mkdir(directory, tonumber("755", 8))
    for i, kind_vectors in ipairs(load_vectors(path)) do
        local kind = kind_vectors.type
        local values = open(directory, i - 1, "values", kind, { must_create = true })
        local keys = kind ~= "json" and open(directory, i - 1, "keys", kind, { must_create = true })
        for _, vector in ipairs(kind_vectors.values) do
            local value = value_of(kind, vector.value)
            assert(values:put(vector.name, value))
            if keys then
                assert(keys:put(value, vector.name))
            end
        end
        values:close()
        if keys then
            keys:close()
        end
    end
end

--- Another schema is refused, and the message shows both.
local function expect_mismatch(directory, number, schema)
    local map, message, code = diskmap.open(("%s/%d-values"):format(directory, number), { key = "u16", value = "bytes" })
    if map or code ~= diskmap.E_MISMATCH then
        fail("%s: opened as u16/bytes: %s", schema, tostring(message))
    elseif not message:find("u16/bytes", 1, true) or not message:find(schema:sub(1, 40), 1, true) then
        fail("'%s' does not show both schemas", message)
    end
end

local function read_values(kind, kind_vectors, directory, number)
    local map = open(directory, number, "values", kind, { read_only = true })
    local expected, count = {}, 0
    for _, vector in ipairs(kind_vectors.values) do
        expected[vector.name] = value_of(kind, vector.value)
        count = count + 1
        local value, problem = map:get(vector.name)
        if value == nil or not same(plain(kind, value), expected[vector.name]) then
            fail("%s in %s/%d, %s: another value %s", kind, directory, number, vector.name, tostring(problem))
        end
    end
    for name, value in map:pairs() do
        if not same(plain(kind, value), expected[name]) then
            fail("%s in %s/%d, %s: another value in a walk", kind, directory, number, name)
        end
        count = count - 1
    end
    if count ~= 0 then
        fail("%s in %s/%d: a walk visits %d entries too few", kind, directory, number, count)
    end
    map:close()
end

local function read_keys(kind, kind_vectors, directory, number)
    local map = open(directory, number, "keys", kind, { read_only = true })
    local names, count = {}, 0 -- by the key's bytes: which name was put last
    for _, vector in ipairs(kind_vectors.values) do
        local bytes = bytes_of(vector.key or vector.bytes)
        count = count + (names[bytes] and 0 or 1)
        names[bytes] = vector.name
    end
    for _, vector in ipairs(kind_vectors.values) do
        local name = map:get(value_of(kind, vector.value))
        if name ~= names[bytes_of(vector.key or vector.bytes)] then
            fail("%s in %s/%d, key %s: is '%s'", kind, directory, number, vector.name, tostring(name))
        end
    end
    if map:count() ~= count then
        fail("%s in %s/%d: %d keys, not %d", kind, directory, number, map:count(), count)
    end
    map:close()
end

local function read_maps(path, directory)
    for i, kind_vectors in ipairs(load_vectors(path)) do
        local kind = kind_vectors.type
        expect_mismatch(directory, i - 1, "str/" .. kind_vectors.schema)
        read_values(kind, kind_vectors, directory, i - 1)
        if kind ~= "json" then
            read_keys(kind, kind_vectors, directory, i - 1)
        end
    end
end

-- ---- live -----------------------------------------------------------------------------------------------------------------

local COUNTERS = 4

--- Adds one in each way that the binding has.
local function add_one(map, key, way)
    if way == 0 then
        assert(map:increment(key))
    elseif way == 1 then
        assert(map:update(key, function(number)
            return (number or 0) + 1
        end))
    else
        repeat
            local number, problem = map:get(key)
            assert(not problem, problem)
            local written = map:compare_and_set(key, number, (number or 0) + 1)
            assert(written ~= nil)
        until written
    end
end

--- Waits until all processes have come here.
local function meet(map, key, all)
    add_one(map, key, 0)
    while map:get(key) ~= all do
        ffi.C.usleep(200)
    end
end

local function expect_number(map, key, wanted)
    local number, problem = map:get(key)
    if number ~= wanted then
        fail("%s is %s, not %s %s", key, tostring(number), tostring(wanted), tostring(problem))
    end
end

local function live(path, index, all, n)
    local map = assert(diskmap.open(path, { key = "str", value = "u53" }))
    meet(map, "ready", all)
    for i = 1, n do
        add_one(map, "shared " .. i % COUNTERS, i % 3)
        local own = ("own %d %d"):format(index, i)
        assert(map:put(own, i * (index + 1)))
        if i % 3 == 0 then
            assert(map:remove(own))
        end
    end
    meet(map, "written", all)
    for i = 0, COUNTERS - 1 do
        expect_number(map, "shared " .. i, all * n / COUNTERS)
    end
    for other = 0, all - 1 do
        for i = 1, n do
            expect_number(map, ("own %d %d"):format(other, i), i % 3 ~= 0 and i * (other + 1) or nil)
        end
    end
    local count = COUNTERS + 2 + all * (n - n / 3)
    if map:count() ~= count then
        fail("%d entries, not %d", map:count(), count)
    end
    local report = assert(map:verify())
    if not report.ok then
        fail("verify: %d bad records, %s", report.bad_records, report.damage)
    end
    map:close()
end

local command = arg[1]
if command == "vectors" and #arg == 2 then
    vectors(arg[2])
elseif command == "write" and #arg == 3 then
    write_maps(arg[2], arg[3])
elseif command == "read" and #arg == 3 then
    read_maps(arg[2], arg[3])
elseif command == "live" and #arg == 5 then
    live(arg[2], tonumber(arg[3]), tonumber(arg[4]), tonumber(arg[5]))
else
    fail("usage: interop.lua vectors|write|read VECTORS [DIR], or live MAP INDEX ALL N")
end
