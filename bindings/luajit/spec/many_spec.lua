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

    -- A codec that keeps its texts in another map, under numbers, and does so with batches.
    local function dictionary(words)
        local function number_of(text)
            local number = "#" .. words:count()
            assert(words:write_many({ { "insert", text, number }, { "insert", number, text } }))
            return words:get_many({ text, "?" })[1]
        end
        local function text_of(number)
            return words:get_many({ number, "?", "?" })[1]
        end
        return diskmap.codec({ name = "word", encode = number_of, decode = text_of })
    end

    it("may be encoded by batches on another map", function()
        local words = support.map("str", "str")
        local word = dictionary(words)
        local texts = support.map(word, word)
        assert(texts:write_many({ { "put", "one", "eins" }, { "put", "two", "zwei" }, { "put", "three", "drei" } }))
        assert.are.same({ "drei", "eins", "zwei" }, texts:get_many({ "three", "one", "two" }))
        assert.are.equal("zwei", texts:get("two"))
        assert.are.equal(3, texts:count())
        texts:close()
        words:close()
    end)

    it("may be encoded by functions that yield, on several maps at once", function()
        local slow = diskmap.codec({ name = "slow", encode = function(text)
            coroutine.yield()
            return text
        end, decode = function(text)
            coroutine.yield()
            return text
        end })
        local coroutines, maps = {}, {}
        for n = 1, 3 do
            maps[n] = support.map(slow, slow)
            coroutines[n] = coroutine.create(function()
                assert(maps[n]:write_many({ { "put", "a", "a" .. n }, { "put", "b", "b" .. n }, { "put", "c", "c" .. n } }))
                assert.are.same({ "c" .. n, "b" .. n, "a" .. n }, maps[n]:get_many({ "c", "b", "a" }))
                return "done"
            end)
        end
        local ended = 0
        while ended < 3 do
            for n = 1, 3 do
                if coroutine.status(coroutines[n]) ~= "dead" then
                    local returned, answer = coroutine.resume(coroutines[n])
                    assert(returned, answer)
                    ended = ended + (answer == "done" and 1 or 0)
                end
            end
        end
        for n = 1, 3 do
            maps[n]:close()
        end
    end)

    it("of more bytes than LuaJIT can have in an array are refused, and nothing is done", function()
        local half = ("x"):rep(2 ^ 10)
        local large = support.map("str", "str")
        large.encode_value = function() -- As a string of 2 GiB would be encoded. Nobody gets so far as to read it.
            return half, 2 ^ 31
        end
        local nothing, problem, code, outcomes = large:write_many({ { "remove", "a" }, { "put", "b", "" } })
        assert.is_nil(nothing)
        assert.are.equal("the values of one call may have 2147483391 bytes: make several calls of it", problem)
        assert.are.equal(diskmap.E_TOO_BIG, code)
        assert.are.same({}, outcomes)
        large.encode_key = large.encode_value
        assert.are.equal(diskmap.E_TOO_BIG, select(3, large:get_many({ "a" })))
        assert.matches("^the keys of one call", message(large:get_many({ "a" })))
        large:close()
    end)
end)
