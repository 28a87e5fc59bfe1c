#!/usr/bin/env luajit
--- shared.lua - two processes on one map: each reads at once what the other has just written.
--
--     luajit shared.lua [directory]
local ffi = require("ffi")
local diskmap = require("opendiskmap")

ffi.cdef("int fork(void); int waitpid(int pid, int *status, int options); int usleep(unsigned microseconds);")

local map = assert(diskmap.open(arg[1] or "shared.map", { key = diskmap.str, value = diskmap.u53 }))
map:remove("q") -- Of an earlier run.
map:remove("a")

--- Waits until the number under `key` is `n`, for 10 s at most.
local function wait_for(key, n)
    for _ = 1, 100000 do
        if map:get(key) == n then
            return true
        end
        ffi.C.usleep(100)
    end
    error("the other process did not answer")
end

local child = ffi.C.fork() -- Both go on using the map, each with its copy of the handle.
assert(child >= 0, "fork")
for n = 1, 5 do
    if child == 0 then -- Asks, waits.
        assert(map:put("q", n))
        wait_for("a", n * n)
    else -- Answers.
        wait_for("q", n)
        assert(map:put("a", n * n))
        print(("the child asked %d, the parent put %d"):format(n, n * n))
    end
end
map:close()
if child > 0 then
    local status = ffi.new("int[1]")
    ffi.C.waitpid(child, status, 0)
    assert(status[0] == 0, "the child failed")
end
