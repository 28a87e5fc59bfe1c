#!/usr/bin/env luajit
--- batch.lua - many keys in one call: puts, inserts and removes mixed, then many gets at once.
--
--     luajit batch.lua [directory]
local diskmap = require("opendiskmap")

local map = assert(diskmap.open(arg[1] or "fruit.map"))
local operations = {
    { "put", "apple", "red" },
    { "insert", "pear", "yellow" },
    { "remove", "plum" },
    { "put", "peach", "round" },
}
-- Done in order, one by one to others. An outcome is false where an insert found its key, or a remove did not.
local unmet = { insert = diskmap.EXISTS, remove = diskmap.NOT_FOUND }
for i, done in ipairs(assert(map:write_many(operations))) do
    local code = done and diskmap.OK or unmet[operations[i][1]]
    print(("write %d: %s"):format(i - 1, diskmap.status_message(code)))
end

local keys = { "apple", "pear", "plum", "peach" }
local values = assert(map:get_many(keys)) -- nil where a key is absent: so not to be counted with #.
for i = 1, #keys do
    print(("get %d: %s"):format(i - 1, values[i] or "absent"))
end
map:close()
