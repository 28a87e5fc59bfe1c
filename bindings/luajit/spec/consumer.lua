-- A program that has the binding installed and nothing else: test_packages.sh runs it twice.

local diskmap = require("opendiskmap")

local path = assert(arg[1])
local map = assert(diskmap.open(path, { key = "str", value = diskmap.struct("runs:u32,name:str") }))
local runs = (map:get("runs") or { runs = 0 }).runs + 1
assert(map:put("runs", { runs = runs, name = path:match("([^/]+)%.map$") }))
assert(map:sync())
print(("run %d, %s"):format(runs, map:get("runs").name))
map:close()
