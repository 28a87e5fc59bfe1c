-- Many keys in one call.

local diskmap = require("opendiskmap")
local support = require("spec.support")

local message = support.message

describe("many keys", function()
    local map
    before_each(function()
        map = support.map("str", "u32")
    end)
    after_each(function()
        map:close()
        support.remove_directories()
    end)

    it("are got in one call, the absent as nil", function()
        for i = 1, 1000 do
            map:put("key " .. i, i)
        end
        local keys = {}
        for i = 1, 2000 do
            keys[i] = "key " .. 2 * i
        end
        local values = assert(map:get_many(keys))
        for i = 1, 2000 do
            assert.are.equal(2 * i <= 1000 and 2 * i or nil, values[i])
        end
        assert.are.same({}, map:get_many({}))
    end)

    it("are got into a table that is there, over what it held", function()
        map:put("a", 1)
        local out = { 7, 8 }
        assert.are.equal(out, map:get_many({ "b", "a" }, out))
        assert.is_nil(out[1])
        assert.are.equal(1, out[2])
    end)

    it("of large size grow the buffers", function()
        local large = support.map("str", "str")
        local key, value = ("k"):rep(100000), ("v"):rep(1000000)
        assert(large:write_many({ { "put", key, value }, { "put", "b", value .. "b" } }))
        local values = assert(large:get_many({ key, "b" }))
        assert.are.equal(value, values[1])
        assert.are.equal(value .. "b", values[2])
        large:close()
    end)

    it("are written in order, with an outcome each", function()
        local outcomes = assert(map:write_many({
            { "put", "a", 1 },
            { "insert", "a", 2 },
            { "remove", "a" },
            { "insert", "a", 3 },
            { "remove", "b" },
        }))
        assert.are.same({ true, false, true, true, false }, outcomes)
        assert.are.equal(3, map:get("a"))
        assert.are.same({}, map:write_many({}))
    end)

    it("are checked before anything is done", function()
        local function refused(item)
            return message(pcall(map.write_many, map, { { "put", "a", 1 }, item }))
        end
        assert.matches("as item 2 expected", refused({ "upsert", "a", 1 }))
        assert.matches("as item 2 expected", refused("put"))
        assert.matches("a string as key of item 2", refused({ "put", 1, 1 }))
        assert.matches("as value of item 2", refused({ "put", "a", "b" }))
        assert.matches("no value as item 2 is a remove", refused({ "remove", "a", 1 }))
        assert.matches("a string as key 2", message(pcall(map.get_many, map, { "a", 1 })))
        assert.are.equal(0, map:count())
    end)

    it("that fail tell how far they came", function()
        local nothing, problem, code, outcomes = map:write_many({
            { "put", "a", 1 },
            { "put", ("k"):rep(2 ^ 24), 1 },
        })
        assert.is_nil(nothing)
        assert.are.equal(diskmap.E_TOO_BIG, code)
        assert.matches("key", problem)
        assert.are.same({}, outcomes, "sizes are checked first")
        assert.are.equal(diskmap.E_TOO_BIG, select(3, map:get_many({ ("k"):rep(2 ^ 24) })))
    end)

    it("one of which can not be decoded are an error that names it", function()
        local path = support.directory() .. "/map"
        local raw = assert(diskmap.open(path))
        raw:put("a", "\1\0\0\0")
        raw:put("b", "\1")
        raw.decode_value, raw.value = select(2, diskmap.u32.codec()), diskmap.u32
        assert.are.equal("the value of key 2 is no u32: u32 has 4 bytes", message(raw:get_many({ "a", "b" })))
        raw:close()
    end)
end)
