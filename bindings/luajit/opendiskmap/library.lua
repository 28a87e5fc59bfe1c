--- library.lua - finds the native library, loads it, and returns its namespace.
--
-- The order, which is also that of the error when there is none:
--   1. opendiskmap.native on package.cpath: what LuaRocks installs beside this file
--   2. libopendiskmap.so in a folder of package.cpath: where OpenResty users put companion libraries
--   3. opendiskmap, 4. libopendiskmap.so.1: where the system's linker looks. 3 needs the name without a version.

if not rawget(_G, "jit") then
    error("opendiskmap needs LuaJIT: this is " .. _VERSION .. ", which has no ffi", 0)
end

local ffi = require("ffi")
local declarations = require("opendiskmap.cdef")

if not ffi.abi("64bit") or not ffi.abi("le") or ffi.os ~= "Linux" then
    error("opendiskmap needs 64-bit, little-endian Linux: this is " .. ffi.os .. ", " .. ffi.arch, 0)
end

-- A struct may be declared once in a Lua state, and another copy of this file may have been here before.
if not pcall(ffi.typeof, "odm_options") then
    ffi.cdef(declarations.text)
end

--- Where the library may be, in order; and the names at which there is no file.
local function candidates()
    local found, absent = {}, {}
    local function look_for(path)
        local file = io.open(path, "rb")
        if not file then
            absent[#absent + 1] = path .. ": no such file"
            return
        end
        file:close()
        -- With a slash in it, or the linker would look elsewhere.
        found[#found + 1] = path:find("/", 1, true) and path or "./" .. path
    end
    for _, name in ipairs({ "opendiskmap/native", "libopendiskmap" }) do
        for template in package.cpath:gmatch("[^;]*%?[^;]*") do
            look_for((template:gsub("%?", name)))
        end
    end
    found[#found + 1] = "opendiskmap"
    found[#found + 1] = "libopendiskmap.so.1"
    return found, absent
end

--- Finds every name of the header now. LuaJIT looks a name up when it is first used, and a trace that is being recorded then is
-- given up: what is rare, such as a refresh, would meet that in a program's loop. Raises if the library lacks one.
local function resolve(library)
    for _, pattern in ipairs({ "(odm_[%w_]+)%(", "(ODM_[%w_]+) =" }) do
        for name in declarations.text:gmatch(pattern) do
            local _ = library[name]
        end
    end
end

--- Loads one; the second result tells why not.
local function load(path)
    local loaded, library = pcall(ffi.load, path)
    if not loaded then
        return nil, path .. ": " .. library
    end
    local answered, version = pcall(function() return library.odm_version() end)
    if not answered then
        return nil, path .. ": " .. version
    end
    local major, minor = math.floor(version / 10000), math.floor(version / 100) % 100
    if major ~= declarations.major or minor < declarations.minor then
        return nil, ("%s: its version is %d.%d, and this binding needs %d.%d or a later %d.x"):format(
            path, major, minor, declarations.major, declarations.minor, declarations.major)
    end
    local complete, missing = pcall(resolve, library)
    if not complete then
        return nil, path .. ": " .. missing
    end
    return library
end

local found, tried = candidates()
for _, path in ipairs(found) do
    local library, problem = load(path)
    if library then
        return library
    end
    tried[#tried + 1] = problem
end
error("the native library of opendiskmap was not found. Tried:\n\t" .. table.concat(tried, "\n\t"), 0)
