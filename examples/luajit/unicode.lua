#!/usr/bin/env luajit
--- unicode.lua - looks characters up in the maps that examples/unicode, a C program, has made; also while it writes to them.
--
--     luajit unicode.lua DIRECTORY U+1F600 SNOWMAN "greek small letter omega"
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

local unknown = false
for i = 2, #arg do
    local code = tonumber(arg[i]:match("^[Uu]%+(%x+)$") or "", 16) or characters:get(arg[i]:upper())
    local name = code and names:get(code)
    if name then
        print(("   %s\tU+%04X  %s"):format(character(code), code, name))
    else
        print("   no character: " .. arg[i])
        unknown = true
    end
end
names:close()
characters:close()
os.exit(not unknown)
