#!/usr/bin/env luajit
--- entry.lua - counts words, in a map that any number of these programs may count into at once. increment reads, adds, and writes
-- only if nobody was faster, else again; update and entry do the same with functions of the program.
--
--     luajit entry.lua [directory] < text
local diskmap = require("opendiskmap")

local map = assert(diskmap.open(arg[1] or "words.map", { key = diskmap.str, value = diskmap.u64 }))
for word in io.read("*a"):gmatch("%S+") do
    print(("%s %d"):format(word, tonumber(assert(map:increment(word)))))
end
map:close()
