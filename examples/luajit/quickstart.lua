#!/usr/bin/env luajit
--- quickstart.lua - put, get, insert if absent, remove. Run it twice: what the first run put is there.
--
--     luajit quickstart.lua [directory]
local diskmap = require("opendiskmap")

-- Makes the map if there is none. A call that fails answers nil, message, code: just what assert takes.
local map = assert(diskmap.open(arg[1] or "colours.map"))
print("entries found: " .. map:count())

assert(map:put("red", "#ff0000"))
assert(map:put("grey", "#808080"))
print("red is " .. assert(map:get("red")))

local inserted, message = map:insert("sky", "#87ceeb") -- Only if the key is absent: true or false.
assert(inserted ~= nil, message)
print("insert sky: " .. diskmap.status_message(inserted and diskmap.OK or diskmap.EXISTS))

assert(map:remove("grey"))
local grey, problem = map:get("grey") -- nil if it is absent; nil and a message if the map could not tell.
assert(not problem, problem)
print("grey after its removal: " .. (grey or diskmap.status_name(diskmap.NOT_FOUND)))
assert(map:sync()) -- From here on all of it survives power loss too.
map:close()
