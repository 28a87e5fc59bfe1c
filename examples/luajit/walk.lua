#!/usr/bin/env luajit
--- walk.lua - walks over a map, removes entries during the walk, stops, and goes on from there.
--
--     luajit walk.lua [directory]
local diskmap = require("opendiskmap")
local COUNT = 10000

local map = assert(diskmap.open(arg[1] or "numbers.map", { key = diskmap.u32, value = diskmap.bytes }))
for n = 0, COUNT - 1 do
    assert(map:put(n, ""))
end

local seen, missed = {}, COUNT

--- Visits up to `limit` entries from `position` on, marks them, removes those with an odd key. Returns where it stopped; going on
-- from there meets some of them again, up to some thousands. So the last visit has no limit that matters: with a small one each
-- time it would never end.
local function visit(position, limit)
    local step, walk = map:keys(position)
    for n in step, walk do
        if not seen[n] then
            seen[n], missed = true, missed - 1
        end
        if n % 2 == 1 then
            assert(map:remove(n) ~= nil)
        end
        limit = limit - 1
        if limit == 0 then
            break
        end
    end
    return walk:position(), walk.over
end

local position = visit(0, math.floor(COUNT / 3))
local _, over = visit(position, 2 * COUNT) -- Another one, to the end; it could be another process.
print(("missed: %d, left: %d, %s"):format(missed, map:count(), diskmap.status_message(over and diskmap.DONE or diskmap.OK)))
map:close()
