#!/usr/bin/env luajit
--- zero_copy.lua - a struct stored as a value, read where it lies, and kept while others write. C reads the same bytes.
--
--     luajit zero_copy.lua [directory]
local diskmap = require("opendiskmap")

local city = diskmap.struct("latitude:f64,longitude:f64,people:u64")
local map = assert(diskmap.open(arg[1] or "cities.map", { key = diskmap.str, value = city }))

local rome = { latitude = 41.9, longitude = 12.5, people = 2750000 }
assert(map:put("Rome", rome))

-- A view reads in the map itself; it is good until the function returns, whatever is put meanwhile.
map:view("Rome", function(before)
    rome.people = rome.people + 1
    assert(map:put("Rome", rome))
    map:view("Rome", function(now)
        print(("then %d, now %d people"):format(tonumber(before.people), tonumber(now.people)))
    end)
end)
map:close()
