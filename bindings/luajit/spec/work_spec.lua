-- Long work: compact, verify, backup, with a progress function called from Lua.

local diskmap = require("opendiskmap")
local support = require("spec.support")

describe("long work", function()
    local map, path
    before_each(function()
        map, path = support.map("u32", "str")
        for round = 1, 3 do
            for i = 1, 2000 do
                map:put(i, ("%d of round %d"):format(i, round))
            end
        end
    end)
    after_each(function()
        map:close()
        support.remove_directories()
    end)

    --- A progress function that checks what it gets, and may use the map.
    local function watcher()
        local calls, last = 0, -1
        return function(done, total)
            calls = calls + 1
            assert.is_true(done >= last)
            assert.is_true(done <= total)
            last = done
            for i = 1, 100 do -- More than a handle reads between two refreshes.
                assert.are.equal(i .. " of round 3", map:get(i))
            end
            assert.is_true(map:refresh())
        end, function()
            return calls
        end
    end

    it("compacts", function()
        local log_bytes = map:stat().log_bytes
        for _ in map:pairs() do end -- What a map has read, by whichever way, does not keep the room.
        map:get_many({ 1, 2, 3 })
        map:view(1, function() end)
        assert(map:compact())
        assert.is_true(map:stat().unlinked_bytes < log_bytes / 2)
        assert.are.equal(2000, map:count())
        local dead = map:stat().dead_bytes
        assert.is_true(dead < map:stat().live_bytes)
        assert.is_true(map:compact((watcher())))
        for i = 1, 2000 do
            assert.are.equal(i .. " of round 3", map:get(i))
        end
    end)

    it("verifies", function()
        local report = assert(map:verify())
        assert.is_true(report.ok)
        assert.is_true(report.records >= 2000)
        assert.is_true(report.bytes > 0)
        assert.are.equal(0, report.bad_records + report.bad_slots)
        assert.is_nil(report.damage)
        assert.are.same(report, map:verify((watcher())))
    end)

    it("verifies a damaged map, and tells what is damaged", function()
        assert(map:sync())
        support.damage(path, "500 of round 3")
        for _, progress in ipairs({ false, (watcher()) }) do
            local report = assert(map:verify(progress or nil))
            assert.is_false(report.ok)
            assert.are.equal(1, report.bad_records)
            assert.is_true(report.records >= 2000)
            assert.matches("^log/%d+.* offset %d+", report.damage)
        end
    end)

    it("backs up", function()
        local target = path .. ".backup"
        assert(map:backup(target))
        local copy = assert(diskmap.open(target, { key = "u32", value = "str", must_exist = true }))
        assert.are.equal(2000, copy:count())
        assert.are.equal("2000 of round 3", copy:get(2000))
        copy:close()
        assert.is_true(map:backup(target .. "2", (watcher())))
        for _, progress in ipairs({ false, (watcher()) }) do
            local nothing, message, code = map:backup(target, progress or nil)
            assert.is_nil(nothing)
            assert.are.equal(target .. " is a map already", message)
            assert.are.equal(diskmap.EXISTS, code)
        end
    end)

    it("goes on after a yield in its progress function", function()
        local resume = coroutine.wrap(function()
            return map:verify(coroutine.yield)
        end)
        local answer = resume()
        while type(answer) == "number" do
            map:put(9999, "meanwhile")
            answer = resume()
        end
        assert.is_true(answer.ok)
    end)

    it("ends when its progress function answers false", function()
        for i = 1, 60000 do -- Enough for more than one step.
            map:put(i, ("x"):rep(1000))
        end
        local calls = 0
        local function stop()
            calls = calls + 1
            return false
        end
        assert.is_false(map:verify(stop))
        assert.are.equal(1, calls)
        assert.is_false(map:compact(stop))
        assert.are.equal(2, calls)
        assert.are.equal(60000, map:count())
        assert.is_false(map:verify(function()
            map:close()
        end))
    end)

    it("ends when its progress function raises, and passes the error on", function()
        for i = 1, 60000 do
            map:put(i, ("x"):rep(1000))
        end
        local problem = { "an error object" }
        local function raise()
            error(problem)
        end
        local target = path .. ".backup"
        for _, call in ipairs({ map.compact, map.verify, function(_, progress) return map:backup(target, progress) end }) do
            local returned, raised = pcall(call, map, raise)
            assert.is_false(returned)
            assert.are.equal(problem, raised)
            assert.are.equal(1, #map.lenders)
        end
        assert.is_true(map:backup(target, function() end))
        -- Also after yields.
        local resume = coroutine.wrap(function()
            return pcall(map.verify, map, function()
                coroutine.yield()
                error(problem)
            end)
        end)
        assert.is_nil(resume())
        assert.are.same({ false, problem }, { resume() })
        assert.are.equal(1, #map.lenders)
    end)

    it("goes on when its process forks, and beside the child's", function()
        for i = 1, 60000 do
            map:put(i, ("x"):rep(1000))
        end
        local wait
        assert.is_true(map:compact(function()
            wait = wait or support.in_child(function()
                for i = 1, 1000 do
                    assert(map:put(i, "from the child"))
                end
                return map:compact() and map:verify().ok and map:close()
            end)
        end))
        assert.is_true(wait())
        assert.is_true(map:verify().ok)
        assert.are.equal(60000, map:count())
        for i = 1, 60000 do
            assert.are.equal(i <= 1000 and "from the child" or ("x"):rep(1000), map:get(i))
        end
    end)

    it("answers what the library does, without a step", function()
        local reader = assert(diskmap.open(path, { key = "u32", value = "str", read_only = true }))
        local answer, message, code = reader:compact()
        assert.is_nil(answer)
        assert.are.equal("string", type(message))
        assert.are.equal(diskmap.E_READ_ONLY, code)
        reader:close()
    end)
end)
