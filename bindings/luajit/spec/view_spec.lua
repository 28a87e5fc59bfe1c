-- Views: values read where they lie, for the length of a function, whatever else happens.

local ffi = require("ffi")
local diskmap = require("opendiskmap")
local support = require("spec.support")

describe("a view", function()
    local map, path
    before_each(function()
        map, path = support.map("str", "str")
    end)
    after_each(function()
        map:close()
        support.remove_directories()
    end)

    local function overwrite_all()
        for _ = 1, 200 do
            map:put("a", ("x"):rep(10000))
        end
        assert(map:compact()) -- Retires what the view lies in.
    end

    it("is a pointer into the map and a size, or a pointer to the number", function()
        map:put("a", "value")
        local first, size, extra = map:view("a", function(bytes, count, more)
            return string.char(bytes[0]), count, more
        end, "extra")
        assert.are.same({ "v", 5, "extra" }, { first, size, extra })
        local numbers = support.map("u8", "f64")
        numbers:put(1, 2.5)
        assert.are.equal(2.5, numbers:view(1, function(number)
            return number[0]
        end))
        numbers:close()
    end)

    it("of an absent key is nil, and no call", function()
        assert.are.equal(0, select("#", select(2, map:view("b", error))))
    end)

    it("stays unchanged while the map is written, read, refreshed and closed", function()
        map:put("a", "first")
        assert.are.equal("first", map:view("a", function(bytes, size)
            overwrite_all()
            for _ = 1, 200 do
                assert.are.equal(10000, #map:get("a"))
            end
            map:refresh()
            map:close()
            return ffi.string(bytes, size)
        end))
        assert.is_false(map:is_open())
    end)

    it("outlives its map's collection", function()
        local point = diskmap.struct("x:f64,name:str")
        local function in_a_coroutine()
            local forgotten = assert(diskmap.open(support.directory() .. "/map", { key = "u8", value = point }))
            forgotten:put(1, { x = 1.5, name = "here" })
            return coroutine.wrap(function()
                forgotten:view(1, function(view)
                    forgotten = nil
                    while true do
                        coroutine.yield(view)
                    end
                end)
            end)
        end
        local resume = in_a_coroutine()
        local view = resume()
        for _ = 1, 5 do
            collectgarbage()
        end
        assert.are.equal(1.5, view.x)
        assert.are.equal("here", view.name)
        resume = nil -- luacheck: ignore
        for _ = 1, 5 do
            collectgarbage()
        end
        -- The coroutine is gone; what is read keeps what it is read from.
        assert.are.equal("here", view.name)
    end)

    it("of a struct is refused after its end", function()
        local points = support.map("u8", diskmap.struct("x:f64,name:str,list:[u16]"))
        points:put(1, { x = 1, name = "a", list = { 1, 2 } })
        local kept, kept_list
        points:view(1, function(view)
            kept, kept_list = view, view.list
            assert.are.equal(2, kept_list[2])
        end)
        for _, use in ipairs({
            function() return kept.x end,
            function() return kept.name end,
            function() return kept.list end,
            function() return kept:to_table() end,
            function() return kept_list[1] end,
        }) do
            local returned, problem = pcall(use)
            assert.is_false(returned)
            assert.matches("the view is used after the end of its Map:view", problem)
        end
        assert.is_false((pcall(points.put, points, 2, kept)))
        points:close()
    end)

    it("ends when its function raises, and passes the error on", function()
        map:put("a", "value")
        local problem = { "an error object" }
        for _ = 1, 3 do
            local returned, raised = pcall(map.view, map, "a", function()
                error(problem)
            end)
            assert.is_false(returned)
            assert.are.equal(problem, raised)
        end
        assert.are.equal(1, #map.lenders)
    end)

    it("may lie within a view, and yield", function()
        map:put("a", "1")
        map:put("b", "2")
        local resume = coroutine.wrap(function()
            return map:view("a", function(a)
                return map:view("b", function(b)
                    coroutine.yield("between")
                    return string.char(a[0], b[0])
                end)
            end)
        end)
        assert.are.equal("between", resume())
        overwrite_all()
        assert.are.equal("12", resume())
        assert.are.equal(2, #map.lenders)
        map:view("a", function() end)
        assert.are.equal(2, #map.lenders)
    end)

    it("of a read-only map works", function()
        map:put("a", "value")
        local reader = assert(diskmap.open(path, { key = "str", value = "str", read_only = true }))
        assert.are.equal("value", reader:view("a", ffi.string))
        map:put("a", "another")
        assert.are.equal("another", reader:view("a", ffi.string))
        reader:close()
    end)

    it("that has ended keeps no files that the map goes on without", function()
        local COUNT = 100000

        --- What is mapped still after the rounds, whose updates go by `update`.
        local function unlinked_after(views, update)
            local numbers = support.map("u32", "str")
            for i = 1, COUNT do
                assert(numbers:put(i, ("x"):rep(300)))
            end
            local function within()
                return numbers:view(2, function() return true end)
            end
            for i = 1, views do
                assert.is_true(numbers:view(i, within))
            end
            for round = 1, 6 do
                for i = 1, COUNT do
                    update(numbers, i, tostring(round):rep(300))
                end
            end
            local bytes = numbers:stat().unlinked_bytes
            numbers:close()
            return bytes
        end

        local function put_and_get(numbers, i, value)
            assert(numbers:put(i, value))
            assert(numbers:get(i))
        end
        local function put(numbers, i, value)
            assert(numbers:put(i, value))
        end
        for _, update in ipairs({ put_and_get, put }) do
            local without = unlinked_after(0, update)
            assert.is_true(unlinked_after(COUNT, update) <= without + 2 ^ 24)
        end
    end)
end)
