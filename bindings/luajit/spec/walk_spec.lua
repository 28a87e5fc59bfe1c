-- Walks: every key once, whatever the loop does; positions; and no loop that ends early without anybody being told.

local diskmap = require("opendiskmap")
local support = require("spec.support")

local COUNT = 3000

describe("a walk", function()
    local map, path
    before_each(function()
        map, path = support.map("u32", "u32")
        for i = 1, COUNT do
            map:put(i, 2 * i)
        end
    end)
    after_each(function()
        map:close()
        support.remove_directories()
    end)

    it("meets every entry once", function()
        local seen, count = {}, 0
        for key, value in map:pairs() do
            assert.is_nil(seen[key])
            assert.are.equal(2 * key, value)
            seen[key] = true
            count = count + 1
        end
        assert.are.equal(COUNT, count)
    end)

    it("meets every key, or every value", function()
        local keys, values = 0, 0
        for key in map:keys() do
            keys = keys + key
        end
        for value in map:values() do
            values = values + value
        end
        assert.are.equal(COUNT * (COUNT + 1) / 2, keys)
        assert.are.equal(COUNT * (COUNT + 1), values)
    end)

    it("may remove and put what it meets", function()
        local met = 0
        for key in map:keys() do
            met = met + 1
            if key % 2 == 0 then
                assert.is_true(map:remove(key))
            else
                assert.is_true(map:put(key, 0))
            end
        end
        assert.are.equal(COUNT, met)
        assert.are.equal(COUNT / 2, map:count())
    end)

    it("gives false values, and an empty map nothing", function()
        local flags = support.map("bool", "bool")
        for _ in flags:pairs() do
            error("an entry of an empty map")
        end
        flags:put(false, false)
        flags:put(true, false)
        local met = 0
        for _, value in flags:pairs() do
            assert.is_false(value)
            met = met + 1
        end
        assert.are.equal(2, met)
        met = 0
        for _ in flags:values() do
            met = met + 1
        end
        assert.are.equal(2, met)
        flags:close()
    end)

    it("goes on from a position, in another process too", function()
        local walk = assert(map:walk())
        local seen = {}
        for _ = 1, COUNT / 3 do
            local key = assert(walk:next())
            seen[key] = true
        end
        local position = walk:position()
        walk:close()
        assert.are.equal("the walk is closed", support.message(walk:next()))
        assert.is_true(support.in_child(function()
            local missing = COUNT
            local child_map = assert(diskmap.open(path, { key = "u32", value = "u32" }))
            for key in child_map:keys(position) do
                seen[key] = true
            end
            for _ in pairs(seen) do
                missing = missing - 1
            end
            return missing == 0
        end)())
        for key in map:pairs(position) do
            seen[key] = true
        end
        for i = 1, COUNT do
            assert.is_true(seen[i])
        end
    end)

    it("seeks, and ends for good", function()
        local walk = map:walk()
        local first = walk:next()
        walk:seek(0xffffffffffffffffULL)
        assert.is_nil((walk:next()))
        assert.are.equal(0, select("#", select(2, walk:next())))
        assert.is_true(walk:position() == 0xffffffffffffffffULL)
        assert.is_true(walk:seek(0))
        assert.are.equal(first, walk:next())
        assert.is_true(walk:close())
        assert.is_true(walk:close())
    end)

    it("can be taken out of its loop", function()
        local met = 0
        local step, walk = map:pairs()
        for _ in step, walk do
            met = met + 1
            if met == 10 then
                break
            end
        end
        for _ in step, walk do
            met = met + 1
        end
        assert.are.equal(COUNT, met)
        for _ in step, walk do
            error("an entry after the end")
        end
    end)

    it("whose map is closed in it raises an error at the loop", function()
        local met = 0
        local returned, problem = pcall(function()
            for _ in map:pairs() do
                met = met + 1
                map:close()
            end
        end)
        assert.is_false(returned)
        assert.matches("walk_spec.lua:%d+: the map was closed during its walk", problem)
        assert.are.equal(1, met)
        map = assert(diskmap.open(path, { key = "u32", value = "u32" }))
        local walk = map:walk()
        walk:next()
        map:close()
        local key, message, code = walk:next()
        assert.is_nil(key)
        assert.are.equal("the map was closed during its walk", message)
        assert.are.equal(diskmap.E_INVALID, code)
        assert.is_nil((walk:position()))
        assert.is_true(walk:close())
    end)

    it("raises what it can not decode", function()
        map:close()
        local raw = assert(diskmap.open(path))
        raw:clear()
        raw:put("\1\0\0\0", "no number")
        raw:close()
        map = assert(diskmap.open(path, { key = "u32", value = "u32" }))
        for _, name in ipairs({ "pairs", "values" }) do
            local returned, problem = pcall(function()
                for _ in map[name](map) do
                    error("an entry that can not be")
                end
            end)
            assert.is_false(returned)
            assert.matches("walk_spec.lua:%d+: the value is no u32: u32 has 4 bytes", problem)
        end
    end)

    it("left early is ended by the garbage collector, also after its map", function()
        for _ = 1, 50 do
            local step, walk = map:pairs()
            step(walk)
        end
        local step, walk = map:pairs()
        step(walk)
        map:close()
        step, walk = nil, nil -- luacheck: ignore
        collectgarbage()
        collectgarbage()
    end)

    it("walks together with others, and in coroutines", function()
        local function walker()
            return coroutine.wrap(function()
                for key, value in map:pairs() do
                    coroutine.yield(key, value)
                end
            end)
        end
        local one, other, met = walker(), walker(), 0
        while true do
            local key, value = one()
            local same_key, same_value = other()
            assert.are.equal(key, same_key)
            assert.are.equal(value, same_value)
            if key == nil then
                break
            end
            assert.are.equal(2 * key, map:get(key))
            met = met + 1
        end
        assert.are.equal(COUNT, met)
    end)

    it("goes on from a position only", function()
        local walk = map:walk()
        for _, wrong in ipairs({ -1, 0.5, 0 / 0, 1 / 0, -1 / 0, 2 ^ 53 + 2, 2 ^ 64, -1LL, 1LL, "1", false }) do
            for _, call in ipairs({
                function() map:walk(wrong) end,
                function() map:pairs(wrong) end,
                function() map:keys(wrong) end,
                function() map:values(wrong) end,
                function() walk:seek(wrong) end,
            }) do
                local returned, problem = pcall(call)
                assert.is_false(returned)
                assert.matches("walk_spec.lua:%d+: bad argument #1 to '%l+' %(a position %(a uint64_t, or an integer", problem)
            end
        end
        for _, right in ipairs({ 0, 2 ^ 53, 0ULL, 0xffffffffffffffffULL }) do
            assert.is_true(walk:seek(right))
            assert(map:walk(right))
        end
    end)
end)
