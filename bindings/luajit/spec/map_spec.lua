-- The operations on one key and on the map as a whole; what they answer, and at whose line misuse is an error.

local ffi = require("ffi")
local diskmap = require("opendiskmap")
local support = require("spec.support")

local message = support.message

--- What fn raises, which must be at a line of this file.
local function raised(fn, ...)
    local returned, problem = pcall(fn, ...)
    assert.is_false(returned)
    assert.matches("^%S*map_spec.lua:%d+: ", problem)
    return (problem:gsub("^%S*:%d+: ", ""))
end

describe("a map", function()
    local map, path
    before_each(function()
        map, path = support.map("str", "u32")
    end)
    after_each(function()
        map:close()
        support.remove_directories()
    end)

    it("puts, gets and removes", function()
        assert.is_nil(map:get("a"))
        assert.is_false(map:has("a"))
        assert.is_true(map:put("a", 1))
        assert.are.equal(1, map:get("a"))
        assert.is_true(map:has("a"))
        assert.is_true(map:put("a", 2))
        assert.are.equal(2, map:get("a"))
        assert.is_true(map:remove("a"))
        assert.is_false(map:remove("a"))
        assert.is_nil(map:get("a"))
        assert.is_true(map:put("", 3))
        assert.are.equal(3, map:get(""))
    end)

    it("answers nothing but nil for what is absent", function()
        assert.are.equal(1, select("#", map:get("a")))
    end)

    it("is there after it was closed, for another process too", function()
        map:put("a", 1)
        map:close()
        map = assert(diskmap.open(path, { key = "str", value = "u32", must_exist = true }))
        assert.are.equal(1, map:get("a"))
        assert(support.in_child(function()
            local other = assert(diskmap.open(path, { key = "str", value = "u32" }))
            return other:get("a") == 1 and other:put("b", 2)
        end)())
        assert.are.equal(2, map:get("b"))
    end)

    it("inserts only what is absent", function()
        assert.is_true(map:insert("a", 1))
        assert.is_false(map:insert("a", 2))
        assert.are.equal(1, map:get("a"))
    end)

    it("gets or inserts", function()
        assert.are.same({ 1, true }, { map:get_or_insert("a", 1) })
        assert.are.same({ 1, false }, { map:get_or_insert("a", 2) })
    end)

    it("updates", function()
        local function add(value, n)
            return (value or 0) + n
        end
        assert.are.equal(2, map:update("a", add, 2))
        assert.are.equal(5, map:update("a", add, 3))
        assert.is_nil(map:update("a", function() end))
        assert.is_false(map:has("a"))
        assert.is_nil(map:update("a", function() end))
    end)

    it("calls an update again if somebody was faster", function()
        map:put("a", 1)
        local calls = 0
        assert.are.equal(11, map:update("a", function(value)
            calls = calls + 1
            if calls == 1 then
                map:put("a", 10) -- Uses the buffer that the key was encoded into, too.
                map:get("quite another key")
            end
            return value + 1
        end))
        assert.are.equal(2, calls)
        assert.are.equal(11, map:get("a"))
        assert.are.equal(1, map:count())
    end)

    it("increments, and not beyond the encoding's range", function()
        assert.are.equal(1, map:increment("a"))
        assert.are.equal(11, map:increment("a", 10))
        assert.are.equal(9, map:increment("a", -2))
        local value, problem, code = map:increment("a", -10)
        assert.is_nil(value)
        assert.are.equal("the sum is no u32", problem)
        assert.are.equal(diskmap.E_INVALID, code)
        assert.are.equal(9, map:get("a"))
        assert.are.equal("the sum is no u32", message(map:increment("a", 0.5)))
    end)

    it("compares and sets", function()
        assert.is_true(map:compare_and_set("a", nil, 1))
        assert.is_false(map:compare_and_set("a", nil, 2))
        assert.is_false(map:compare_and_set("a", 2, 3))
        assert.is_true(map:compare_and_set("a", 1, 3))
        assert.are.equal(3, map:get("a"))
        assert.is_false(map:compare_and_set("b", 1, 3))
    end)

    it("has entries", function()
        local entry = map:entry("a")
        assert.is_false(entry:is_occupied())
        assert.is_false(entry:remove())
        assert.are.equal(4, entry:or_insert(4))
        entry = map:entry("a")
        assert.are.equal(4, entry.value)
        map:put("a", 5)
        assert.is_false(entry:put(6))
        assert.is_false(entry:remove())
        assert.are.equal(5, map:get("a"))
        assert.are.equal(4, entry:or_insert(9), "an occupied entry keeps what it saw")
        entry = map:entry("a")
        assert.is_true(entry:put(6))
        assert.is_true(map:entry("a"):remove())
        local function double(value)
            return value * 2
        end
        local function three()
            return 3
        end
        assert.are.equal(3, map:entry("b"):and_modify(double):or_insert_with(three))
        assert.are.equal(6, map:entry("b"):and_modify(double):or_insert_with(three))
        -- Vacant when it was looked at, filled since.
        entry = map:entry("c")
        map:put("c", 1)
        assert.are.equal(1, entry:or_insert(2))
        -- Somebody is faster than the modification.
        local calls = 0
        entry = map:entry("c"):and_modify(function(value)
            calls = calls + 1
            if calls == 1 then
                map:put("c", 10)
            end
            return value + 1
        end)
        assert.are.equal(11, entry.value)
        assert.are.equal(11, map:get("c"))
    end)

    it("counts, clears and describes itself", function()
        for i = 1, 1000 do
            map:put("key " .. i, i)
        end
        assert.are.equal(1000, map:count())
        local statistics = assert(map:stat())
        assert.are.equal(1000, statistics.count)
        assert.are.equal(statistics.capacity, map:capacity())
        assert.are.equal(1000 / statistics.slots, map:load_factor())
        assert.matches("^%x+$", statistics.map_id)
        assert.are.equal(32, #statistics.map_id)
        assert.are.equal("none", statistics.recovery_kind)
        assert.is_false(statistics.sync_failed)
        assert.are.equal("str/u32", map:schema())
        assert.are.equal("opendiskmap: " .. path, tostring(map))
        assert.is_true(map:sync())
        assert.is_true(map:refresh())
        assert.is_true(map:clear())
        assert.are.equal(0, map:count())
    end)

    it("that was closed is told to the line that uses it", function()
        assert.is_true(map:close())
        assert.is_true(map:close())
        assert.is_false(map:is_open())
        local function calls(name, ...)
            local count, arguments = select("#", ...), { ... }
            return function()
                map[name](map, unpack(arguments, 1, count))
            end
        end
        local nothing = function() end
        for _, call in ipairs({
            calls("get", "a"), calls("has", "a"), calls("put", "a", 1), calls("remove", "a"), calls("insert", "a", 1),
            calls("entry", "a"), calls("get_or_insert", "a", 1), calls("update", "a", nothing), calls("increment", "a"),
            calls("compare_and_set", "a", 1, 2), calls("compare_and_set", "a", nil, 2), calls("view", "a", nothing),
            calls("get_many", { "a" }), calls("write_many", { { "put", "a", 1 } }), calls("walk"), calls("pairs"),
            calls("keys"), calls("values"), calls("clear"), calls("count"), calls("capacity"), calls("load_factor"),
            calls("stat"), calls("schema"), calls("sync"), calls("refresh"), calls("compact"), calls("verify"),
            calls("backup", path .. "2"),
        }) do
            assert.are.equal("the map is closed", raised(call))
        end
        assert.are.equal("opendiskmap: " .. path .. " (closed)", tostring(map))
    end)

    it("names the argument that is wrong, at the line that passed it", function()
        assert.are.equal("bad argument #1 to 'get' (a string expected, got 1)", raised(function()
            map:get(1)
        end))
        assert.are.equal("bad argument #2 to 'put' (an integer from 0 to 4294967295 expected, got string)", raised(function()
            map:put("a", "b")
        end))
        for _, call in ipairs({
            function() map:has(1) end, function() map:put(1, 1) end, function() map:remove(1) end,
            function() map:insert(1, 1) end, function() map:insert("a", "a") end, function() map:entry(1) end,
            function() map:get_or_insert(1, 1) end, function() map:get_or_insert("a", "a") end,
            function() map:update(1, print) end, function() map:update("a", 1) end,
            function() map:update("a", function() return "a" end) end,
            function() map:increment(1) end, function() map:increment("a", "1") end,
            function() map:compare_and_set(1, 1, 1) end, function() map:compare_and_set("a", "a", 1) end,
            function() map:compare_and_set("a", 1, "a") end, function() map:compare_and_set("a", nil, "a") end,
            function() map:compare_and_set(1, nil, 1) end,
            function() map:view(1, print) end, function() map:view("a") end,
            function() map:get_many("a") end, function() map:get_many({ 1 }) end, function() map:get_many({}, 1) end,
            function() map:write_many("a") end, function() map:walk("a") end, function() map:pairs("a") end,
            function() map:backup() end, function() map:backup("a\0b") end, function() map:compact(1) end,
            function() map:verify(1) end, function() map:backup("a", 1) end, function() map:entry("a"):put("a") end,
            function() map:entry("a"):or_insert("a") end, function() map:entry("a"):or_insert_with(1) end,
            function() map:entry("a"):and_modify(1) end, function() map:walk():seek("a") end,
        }) do
            assert.matches("^bad argument #%d to '[%l_]+' %(.* expected, got .*%)$", raised(call))
        end
    end)

    it("tells misuse by the program's functions at the line of the call, too", function()
        local function close()
            map:close()
            return 1
        end
        local function nothing() end
        map:put("a", 1)
        for _, call in ipairs({
            function() map:entry("b"):or_insert_with(nothing) end,
            function() map:entry("b"):or_insert_with(tostring, 1) end,
            function() map:entry("a"):and_modify(nothing) end,
            function() map:update("a", tostring) end,
        }) do
            assert.matches("^bad argument #%d to '[%l_]+' %(a function that answers an integer.* expected, got %l+%)$",
                raised(call))
        end
        local finished = map:walk()
        while finished:next() do end
        local vacant, occupied = map:entry("b"), map:entry("a")
        for _, call in ipairs({
            function() map:entry("b"):or_insert_with(close) end,
            function() map:entry("a"):and_modify(close) end,
            function() map:update("a", close) end,
            function() map:update("b", close) end,
            function() map:update("a", function() map:close() end) end,
            function() map:close() finished:seek(0) end,
            function() map:close() vacant:put(1) end,
            function() map:close() vacant:or_insert(1) end,
            function() map:close() occupied:remove() end,
        }) do
            if not map:is_open() then
                map = assert(diskmap.open(path, { key = "str", value = "u32" }))
            end
            assert.are.equal("the map is closed", raised(call))
        end
    end)

    it("answers what it has put as a get would", function()
        local numbers, floats = support.map("str", "u64"), support.map("str", "f32")
        local points = support.map("str", diskmap.struct("x:f32"))
        local function give(_, value)
            return value
        end
        local function itself(value)
            return value
        end
        for name, put in pairs({
            get_or_insert = function(any, value) return (any:get_or_insert("a", value)) end,
            or_insert = function(any, value) return any:entry("a"):or_insert(value) end,
            or_insert_with = function(any, value) return any:entry("a"):or_insert_with(itself, value) end,
            update = function(any, value) return any:update("a", give, value) end,
        }) do
            for _, any in ipairs({ numbers, floats, points }) do
                any:clear()
            end
            local put_number = put(numbers, 5)
            assert.are.equal("cdata", type(put_number), name)
            assert.is_true(put_number == 5ULL)
            assert.are.equal(floats:get_or_insert("b", 0.1), put(floats, 0.1))
            assert.are.equal(floats:get("a"), put(floats, 0.1))
            assert.are_not.equal(0.1, put(floats, 0.1))
            local view = put(points, { x = 0.5 })
            assert.are.same({ x = 0.5 }, view:to_table())
        end
        for _, any in ipairs({ numbers, floats, points }) do
            any:close()
        end
    end)

    it("of numbers that are no numbers can not be incremented", function()
        local strings = support.map("str", "str")
        assert.matches("the map's values are no numbers", raised(function()
            strings:increment("a")
        end))
        strings:close()
    end)

    it("reports failures of the library as nil, message, code", function()
        local value, problem, code = map:put(("k"):rep(2 ^ 24), 1)
        assert.is_nil(value)
        assert.are.equal(diskmap.E_TOO_BIG, code)
        assert.matches("the key has 16777216 bytes", problem)
        local reader = assert(diskmap.open(path, { key = "str", value = "u32", read_only = true }))
        map:put("a", 1)
        assert.are.equal(1, reader:get("a"))
        for _, answer in ipairs({
            { reader:put("a", 1) }, { reader:remove("a") }, { reader:insert("b", 1) }, { reader:increment("a") },
            { reader:update("a", function() return 1 end) }, { reader:compare_and_set("a", 1, 2) }, { reader:clear() },
            { reader:sync() }, { reader:write_many({ { "put", "a", 1 } }) }, { reader:get_or_insert("b", 1) },
            { reader:entry("b"):or_insert(1) },
            { reader:entry("a"):and_modify(function() return 1 end) },
        }) do
            assert.is_nil(answer[1])
            assert.are.equal("string", type(answer[2]))
            assert.are.equal(diskmap.E_READ_ONLY, answer[3])
        end
        reader:close()
    end)

    it("that is forgotten is closed", function()
        local closed = 0
        local forgotten = assert(diskmap.open(nil))
        local close = ffi.gc(forgotten.handle, nil)
        ffi.gc(close, function(handle)
            closed = closed + 1
            require("opendiskmap.library").odm_close(handle)
        end)
        forgotten, close = nil, nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
        assert.are.equal(1, closed)
    end)

    it("of 64-bit integers increments up to the end of 64 bits", function()
        local unsigned, signed = support.map("str", "u64"), support.map("str", "i64")
        unsigned:put("a", 0xfffffffffffffffeULL)
        assert.is_true(unsigned:increment("a") == 0xffffffffffffffffULL)
        assert.are.equal("the sum is no u64", message(unsigned:increment("a")))
        assert.is_true(unsigned:increment("a", -1) == 0xfffffffffffffffeULL)
        assert.is_true(unsigned:increment("a", -0x7fffffffffffffffLL) == 0x7fffffffffffffffULL)
        assert.is_true(unsigned:increment("b", 0) == 0ULL)
        assert.are.equal("the sum is no u64", message(unsigned:increment("b", -1)))
        signed:put("a", -0x7fffffffffffffffLL)
        assert.is_true(signed:increment("a", -1) == -0x7fffffffffffffffLL - 1)
        assert.are.equal("the sum is no i64", message(signed:increment("a", -1)))
        assert.is_true(signed:increment("a", 0x7fffffffffffffffLL) == -1LL)
        assert.is_true(signed:increment("a", 1) == 0LL)
        -- What can be added to what is there can be added to what is absent, and nothing else.
        for by, is_refused in pairs({
            [2 ^ 53 - 1] = false, [-(2 ^ 53 - 1)] = false, [2 ^ 53] = true, [-2 ^ 53] = true, [0.5] = true,
            [1ULL] = false, [-1LL] = false,
        }) do
            for _, integers in ipairs({ unsigned, signed }) do
                integers:put("present", 0)
                integers:remove("absent")
                local absent = { pcall(integers.increment, integers, "absent", by) }
                assert.are.same(absent, { pcall(integers.increment, integers, "present", by) })
                if type(by) == "number" then
                    assert.are.equal(is_refused, not absent[1])
                end
            end
        end
        unsigned:close()
        signed:close()
    end)

    it("has # and pairs for builds of LuaJIT that ask tables for them", function()
        map:put("a", 1)
        local class = getmetatable(map)
        assert.are.equal(1, class.__len(map))
        for key, value in class.__pairs(map) do
            assert.are.same({ "a", 1 }, { key, value })
        end
    end)

    it("keeps 64-bit cdata keys apart", function()
        local numbers = support.map("u64", "str")
        numbers:put(0xffffffffffffffffULL, "last")
        numbers:put(1, "one")
        assert.are.equal("last", numbers:get(0xffffffffffffffffULL))
        assert.are.equal("one", numbers:get(1ULL))
        numbers:close()
    end)
end)

describe("opening", function()
    after_each(support.remove_directories)

    it("with another schema is refused, and both are shown", function()
        local map, path = support.map("str", "u32")
        map:close()
        local other, problem, code = diskmap.open(path, { key = "u64", value = "str" })
        assert.is_nil(other)
        assert.are.equal(diskmap.E_MISMATCH, code)
        assert.matches('"str/u32"', problem)
        assert.matches('"u64/str"', problem)
    end)

    it("without encodings takes any map, as strings", function()
        local map, path = support.map("str", "u32")
        map:put("a", 1)
        map:close()
        map = assert(diskmap.open(path))
        assert.are.equal("\1\0\0\0", map:get("a"))
        map:close()
    end)

    it("honours must_exist and must_create", function()
        local path = support.directory() .. "/map"
        assert.are.equal(diskmap.NOT_FOUND, select(3, diskmap.open(path, { must_exist = true })))
        assert.are.equal(diskmap.NOT_FOUND, select(3, diskmap.open(path, { read_only = true })))
        assert(diskmap.open(path, { must_create = true })):close()
        assert.are.equal(diskmap.EXISTS, select(3, diskmap.open(path, { must_create = true })))
        assert(diskmap.open(path, { must_create = false, capacity = 1000, stripes = 4, wait_ms = 5 })):close()
    end)

    it("makes files with the mode and capacity that was asked for", function()
        local path = support.directory() .. "/map"
        local map = assert(diskmap.open(path, {
            file_mode = tonumber("600", 8), capacity = 100000, capacity_bytes = 1e6, stripes = 4,
        }))
        assert.are.equal("600", support.output_of("stat -c %a " .. path .. "/meta"))
        assert.is_true(map:capacity() >= 100000)
        assert.are.equal(4, map:stat().stripes)
        map:close()
    end)

    it("keeps what is whole of a damaged map, if it is asked to", function()
        local map, path = support.map("str", "str")
        for i = 1, 1000 do
            map:put("key " .. i, "value " .. i)
        end
        map:sync()
        map:close()
        support.damage(path, "value 500")
        map = assert(diskmap.open(path, { key = "str", value = "str", salvage = true }))
        assert.are.equal("salvaged", map:stat().recovery_kind)
        assert.are.equal(999, map:count())
        assert.is_nil((map:get("key 500")))
        assert.are.equal("value 501", map:get("key 501"))
        map:close()
        assert(diskmap.open(path, { key = "str", value = "str" })):close()
    end)

    it("names the option that is wrong, at the caller's line", function()
        local function refused(options)
            return raised(function()
                diskmap.open("never made", options)
            end)
        end
        assert.matches("option 'capacty': no such option", refused({ capacty = 1 }))
        assert.matches("option 'capacity': an integer from 0 to 9007199254740992%)", refused({ capacity = -1 }))
        assert.matches("option 'wait_ms': an integer from 0 to 4294967295%)", refused({ wait_ms = 2 ^ 32 }))
        assert.matches("option 'read_only': true or false", refused({ read_only = 1 }))
        assert.matches("option 'key': an encoding", refused({ key = "u65", value = "str" }))
        assert.matches("option 'value': an encoding", refused({ key = "u64", value = {} }))
        assert.matches("option 'value': an encoding", refused({ key = "u64", value = { codec = print } }))
        assert.matches("'key' and 'value': both, or none", refused({ key = "u64" }))
        assert.matches("option 'owner': the name", refused({ owner = 1 }))
        assert.matches("option 'owner': the name", refused({ owner = "nobody\0" }))
        assert.matches("a table of options expected, got string", refused("r"))
        assert.matches("a path expected, got 1", raised(function()
            diskmap.open(1)
        end))
        assert.are.equal(diskmap.E_INVALID, select(3, diskmap.open("never made", { stripes = 3 })))
        assert.are.equal(diskmap.E_INVALID, select(3, diskmap.open("")))
    end)

    it("offers ready-made maps", function()
        local directory = support.directory()
        local numbers = assert(diskmap.U64StringMap.open(directory .. "/1"))
        numbers:put(1, "one")
        assert.are.equal("one", numbers:get(1))
        assert.are.equal("u64/str", numbers:schema())
        numbers:close()
        local counts = assert(diskmap.StringU64Map.open(directory .. "/2", { stripes = 1 }))
        assert.is_true(counts:increment("one") == 1ULL)
        counts:close()
        local strings = assert(diskmap.StringStringMap.open(nil))
        strings:put("a", "b")
        assert.are.equal("b", strings:get("a"))
        strings:close()
        assert.matches("option 'key' is fixed: u64", raised(function()
            diskmap.U64StringMap.open(directory .. "/1", { key = "str" })
        end))
    end)

    it("has the library's codes and texts", function()
        assert.are.equal(0, diskmap.OK)
        assert.are.equal(-11, diskmap.E_UNSUPPORTED)
        assert.are.equal("ODM_E_NO_SPACE", diskmap.status_name(diskmap.E_NO_SPACE))
        assert.are.equal("the key is not in the map", diskmap.status_message(diskmap.NOT_FOUND))
        assert.matches("^%d+%.%d+%.%d+$", diskmap.version)
        for _, wrong in ipairs({ "x", "1", 0.5, 0 / 0, 2 ^ 31, {} }) do
            assert.matches("bad argument #1 to 'status_name' %(a code expected", raised(function()
                diskmap.status_name(wrong)
            end))
            assert.matches("bad argument #1 to 'status_message' %(a code expected", raised(function()
                diskmap.status_message(wrong)
            end))
        end
        assert.are.equal("unknown status", diskmap.status_name(1000))
    end)

    it("keeps several maps apart", function()
        local a, b = support.map("u32", "u32"), support.map("u32", "u32")
        for i = 1, 100 do
            a:put(i, i)
            b:put(i, 2 * i)
        end
        for i = 1, 100 do
            assert.are.equal(2 * a:get(i), b:get(i))
        end
        for key, value in a:pairs() do
            assert.are.equal(2 * value, b:get(key))
        end
        a:close()
        assert.are.equal(200, b:get(100))
        b:close()
    end)
end)
