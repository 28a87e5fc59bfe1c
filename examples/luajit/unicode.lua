#!/usr/bin/env luajit
--- unicode.lua - looks characters up in the maps that examples/unicode, a C program, has made; also while it writes to them.
--
--     luajit unicode.lua DIRECTORY U+1F600 SNOWMAN "greek small letter omega"
--     luajit unicode.lua DIRECTORY live         sees what `unicode live` writes, which is to be run when this says "ready"
local diskmap = require("opendiskmap")

local directory = assert(arg[1], "which directory?")

--- Locks nothing, writes nothing, and still sees what others write now.
local function open(name, key, value)
    local path = directory .. "/" .. name
    local options = { key = key, value = value, read_only = true, any_file_system = true }
    return assert(diskmap.open(path, options))
end
local names = open("names", diskmap.u32, diskmap.str)
local characters = open("characters", diskmap.str, diskmap.u32)

--- What is under a key; nil if it is absent. That the map could not tell is something else.
local function find(map, key)
    local value, problem = map:get(key)
    assert(not problem, problem)
    return value
end

--- The character of a code point in UTF-8.
local function character(code)
    local char, floor = string.char, math.floor
    if code < 0x80 then
        return char(code)
    elseif code < 0x800 then
        return char(0xc0 + floor(code / 0x40), 0x80 + code % 0x40)
    elseif code < 0x10000 then
        return char(0xe0 + floor(code / 0x1000), 0x80 + floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
    end
    return char(0xf0 + floor(code / 0x40000), 0x80 + floor(code / 0x1000) % 0x40, 0x80 + floor(code / 0x40) % 0x40,
        0x80 + code % 0x40)
end

--- Waits until U+E000, which is for private use, has a name: `unicode live` gives it some, and takes them away again.
local function live()
    print("   ready")
    io.stdout:flush()
    local name
    local give_up = os.time() + 60
    repeat
        name = find(names, 0xe000)
    until name or os.time() > give_up
    print("   LuaJIT has seen U+E000 as " .. (name or "nothing"))
    return name ~= nil
end

--- Prints what the arguments mean; false if one of them is no character.
local function look_up()
    local all_known = true
    for i = 2, #arg do
        local code = tonumber(arg[i]:match("^[Uu]%+(%x+)$") or "", 16) or find(characters, arg[i]:upper())
        local name = code and find(names, code)
        if name then
            print(("   %s\tU+%04X  %s"):format(character(code), code, name))
        else
            print("   no character: " .. arg[i])
            all_known = false
        end
    end
    return all_known
end

local succeeded
if arg[2] == "live" then
    succeeded = live()
else
    succeeded = look_up()
end
names:close()
characters:close()
os.exit(succeeded)
