-- Several Lua states in one process, as with lua_code_cache off: each opens for itself, and may end in any order, with all open.

local ffi = require("ffi")
local diskmap = require("opendiskmap")
local support = require("spec.support")

ffi.cdef([[
typedef struct lua_State lua_State;
lua_State *luaL_newstate(void);
void luaL_openlibs(lua_State *state);
int luaL_loadstring(lua_State *state, const char *code);
int lua_pcall(lua_State *state, int arguments, int results, int handler);
const char *lua_tolstring(lua_State *state, int index, size_t *size);
void lua_close(lua_State *state);
]])

--- A new Lua state in this process that has run `code`.
local function state(code)
    local lua = ffi.C.luaL_newstate()
    ffi.C.luaL_openlibs(lua)
    if ffi.C.luaL_loadstring(lua, code) ~= 0 or ffi.C.lua_pcall(lua, 0, 0, 0) ~= 0 then
        error(ffi.string(ffi.C.lua_tolstring(lua, -1, nil)))
    end
    return lua
end

--- Lines of a file of this process in /proc that name `path`.
local function lines_with(path, file)
    local count = 0
    for line in io.lines("/proc/self/" .. file) do
        if line:find(path, 1, true) then
            count = count + 1
        end
    end
    return count
end

describe("a map in several Lua states of one process", function()
    after_each(support.remove_directories)

    it("is closed with its state, with a walk and a view in use", function()
        local path = support.directory() .. "/map"
        local code = ([[
            package.path, package.cpath = %q, %q
            local diskmap = require("opendiskmap")
            local map = assert(diskmap.open(%q, { key = "str", value = "u53" }))
            for _ = 1, 10 do
                assert(map:increment("n"))
            end
            local step, walk = map:pairs()
            step(walk)
            local view = coroutine.wrap(function()
                map:view("n", function(number) coroutine.yield(number[0]) end)
            end)
            view()
            in_use = { map, walk, view }]]):format(package.path, package.cpath, path)
        for _ = 1, 50 do
            ffi.C.lua_close(state(code))
        end
        assert.are.equal(0, lines_with(path, "maps"))
        local states = {}
        for i = 1, 10 do
            states[i] = state(code)
        end
        for i = 1, 10, 2 do
            ffi.C.lua_close(states[i])
        end
        for i = 10, 2, -2 do
            ffi.C.lua_close(states[i])
        end
        assert.are.equal(0, lines_with(path, "maps"))
        local map = assert(diskmap.open(path, { key = "str", value = "u53" }))
        assert.are.equal(600, map:get("n"))
        map:close()
    end)
end)
