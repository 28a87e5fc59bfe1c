--- opendiskmap.lua - a persistent hash map: a directory on disk, shared live by any number of processes.
--
--     local diskmap = require("opendiskmap")
--     local map = assert(diskmap.open("colours", { key = diskmap.str, value = diskmap.str }))
--     assert(map:put("red", "#ff0000"))
--     print(map:get("red"))
--     map:close()
--
-- A call that fails answers nil, message, code. A call that is wrong (a closed map, a key of the wrong type) raises an error at
-- the line that made it. See README.md.

local ffi = require("ffi")
local C = require("opendiskmap.library")
local encodings = require("opendiskmap.encodings")
local new_map = require("opendiskmap.map")
local owner = require("opendiskmap.owner")
local status = require("opendiskmap.status")
local struct = require("opendiskmap.struct")

local diskmap = {
    --- The library's version, such as "1.0.0".
    version = ffi.string(C.odm_version_string()),
}

-- ---- codes ------------------------------------------------------------------------------------------------------------

-- diskmap.NOT_FOUND, diskmap.E_NO_SPACE, ...: odm_status without ODM_.
for code = -32, 32 do
    local name = ffi.string(C.odm_status_name(code)):match("^ODM_(.+)$")
    if name then
        diskmap[name] = code
    end
end

--- What is no code would be converted to one, or the error raised here.
local function is_code(code)
    return type(code) == "number" and code % 1 == 0 and code >= -2 ^ 31 and code < 2 ^ 31
end

--- "ODM_E_NO_SPACE", for logs.
function diskmap.status_name(code)
    if not is_code(code) then
        return status.bad_argument(1, "status_name", "a code", code)
    end
    return ffi.string(C.odm_status_name(code))
end

--- What a code means, in a sentence.
function diskmap.status_message(code)
    if not is_code(code) then
        return status.bad_argument(1, "status_message", "a code", code)
    end
    return ffi.string(C.odm_status_message(code))
end

-- ---- encodings ----------------------------------------------------------------------------------------------------------

-- diskmap.u64, diskmap.str, ...
for name, encoding in pairs(encodings.named) do
    diskmap[name] = encoding
end

--- The encoding of structs: diskmap.struct("id:u32,name:str,scores:[f64]").
function diskmap.struct(text)
    if type(text) ~= "string" then
        return status.bad_argument(1, "struct", "fields such as 'id:u32,name:str'", text)
    end
    local encoding, problem = struct(text)
    if not encoding then
        error("bad struct: " .. problem, 2)
    end
    return encoding
end

--- An encoding of one's own: diskmap.codec({ name = "point", encode = point_to_string, decode = string_to_point }). Its name goes
-- into the schema. A function may answer nil and a message. Neither may use the map it encodes for, nor may anybody while it
-- yields; other maps may be used.
function diskmap.codec(codec)
    local encoding, expected = encodings.own(codec)
    if not encoding then
        return status.bad_argument(1, "codec", expected, codec)
    end
    return encoding
end

--- The encoding that options name: one of the above, or the name of one.
local function encoding_of(given)
    if type(given) == "table" then
        local is_encoding = type(given.codec) == "function" and type(given.name) == "string"
        return is_encoding and type(given.schema_name) == "string" and given or nil
    elseif type(given) == "string" then
        return encodings.named[given] or (given:find("^struct{") and struct(given)) or nil
    end
end

-- ---- opening --------------------------------------------------------------------------------------------------------------

local flags = {
    read_only = C.ODM_READ_ONLY,
    must_exist = C.ODM_MUST_EXIST,
    must_create = C.ODM_MUST_CREATE,
    verify_reads = C.ODM_VERIFY_READS,
    any_file_system = C.ODM_ANY_FILE_SYSTEM,
    salvage = C.ODM_SALVAGE,
}
local numbers = { -- name: the greatest value
    capacity = 2 ^ 53,
    capacity_bytes = 2 ^ 53,
    stripes = 2 ^ 32 - 1,
    file_mode = 2 ^ 32 - 1,
    wait_ms = 2 ^ 32 - 1,
}

--- Puts one option into `native`, or into `chosen`, whose `exists` tells that no map is to be made; or answers what was expected.
local function take_option(name, value, native, chosen)
    if flags[name] then
        if type(value) ~= "boolean" then
            return "true or false"
        elseif value then
            native.flags = native.flags + flags[name]
            chosen.exists = chosen.exists or name == "read_only" or name == "must_exist"
        end
    elseif numbers[name] then
        if type(value) ~= "number" or value < 0 or value > numbers[name] or value % 1 ~= 0 then
            return ("an integer from 0 to %d"):format(numbers[name])
        end
        native[name] = value
    elseif name == "key" or name == "value" then
        chosen[name] = encoding_of(value)
        return not chosen[name] and "an encoding, or the name of one" or nil
    elseif name == "owner" then
        chosen.owner = value
        return (type(value) ~= "string" or value:find("\0", 1, true)) and "the name of a user" or nil
    else
        return "no such option"
    end
end

--- Fills in `native` and `chosen`; or answers what is wrong.
local function take_options(options, native, chosen)
    native.struct_size = ffi.sizeof("odm_options")
    for name, value in pairs(options) do
        local expected = take_option(name, value, native, chosen)
        if expected then
            return ("option '%s': %s"):format(tostring(name), expected)
        end
    end
    if (chosen.key == nil) ~= (chosen.value == nil) then
        return "options 'key' and 'value': both, or none"
    end
end

--- What maps use to encode; or nil and why there is none.
local function codecs_of(key, value)
    local codecs = {}
    codecs.encode_key, codecs.decode_key = (key.key_codec or key.codec)()
    if not codecs.encode_key then
        return nil, codecs.decode_key
    end
    codecs.encode_value, codecs.decode_value, codecs.view_value = value.codec()
    if not codecs.encode_value then
        return nil, codecs.decode_value
    end
    return codecs
end

--- Opens the map in the directory `path`, or makes it; path nil: one in memory, for this process alone. The map; or nil, message,
-- code. Options, all of which may be left out:
--
--   key, value       encodings, checked against those the map was made with. Without them both are strings, unchecked
--   read_only        lock nothing, write nothing; the map must exist
--   must_exist       NOT_FOUND instead of making a map
--   must_create      EXISTS instead of opening one that is there
--   verify_reads     check the checksums of whatever is read
--   any_file_system  also where the promises do not hold: network and layered file systems
--   salvage          keep what is whole of a damaged map
--   capacity         entries to make room for when the map is made
--   capacity_bytes   bytes of keys and values to expect, likewise
--   stripes          locks for writing, a power of two up to 64, likewise; 16 if left out
--   file_mode        permissions of the files, likewise; tonumber("644", 8) less the umask if left out
--   wait_ms          the longest wait for a lock that a live process holds; 30,000 if left out
--   owner            a user to whom the map is given if root makes it by this call: see README.md, OpenResty
function diskmap.open(path, options)
    if path ~= nil and (type(path) ~= "string" or path:find("\0", 1, true)) then
        return status.bad_argument(1, "open", "a path", path)
    elseif options ~= nil and type(options) ~= "table" then
        return status.bad_argument(2, "open", "a table of options", options)
    end
    local native, chosen = ffi.new("odm_options"), {}
    local problem = take_options(options or {}, native, chosen)
    if problem then
        error("bad argument #2 to 'open' (" .. problem .. ")", 2)
    end

    local key, value = chosen.key or diskmap.bytes, chosen.value or diskmap.bytes
    local schema = chosen.key and key.schema_name .. "/" .. value.schema_name
    if schema then
        native.schema, native.schema_size = schema, #schema
    end
    local codecs
    codecs, problem = codecs_of(key, value)
    if not codecs then
        return nil, problem, C.ODM_E_UNSUPPORTED
    end
    local opened
    if path and chosen.owner and not chosen.exists then
        local message, failed
        opened, message, failed = owner.give(path, chosen.owner)
        if not opened then
            return nil, message, failed
        end
    end

    local handle, detail = ffi.new("odm_map *[1]"), status.new_detail()
    local code = C.odm_open(path, native, handle, detail)
    if opened then
        opened(code == C.ODM_OK)
    end
    if code ~= C.ODM_OK then
        return status.detailed(code, detail)
    end
    return new_map(handle[0], path, key, value, codecs)
end

-- ---- ready-made ---------------------------------------------------------------------------------------------------------------

--- A class of maps with fixed encodings: its open takes the other options.
local function ready_made(key, value)
    local function open(path, options)
        if options ~= nil and type(options) ~= "table" then
            return status.bad_argument(2, "open", "a table of options", options)
        end
        local all = { key = key, value = value }
        for name, option in pairs(options or {}) do
            if name == "key" or name == "value" then
                error(("bad argument #2 to 'open' (option '%s' is fixed: %s)"):format(name, all[name].name), 2)
            end
            all[name] = option
        end
        return diskmap.open(path, all)
    end
    return { open = open }
end

diskmap.U64StringMap = ready_made(diskmap.u64, diskmap.str)
diskmap.StringU64Map = ready_made(diskmap.str, diskmap.u64)
diskmap.StringStringMap = ready_made(diskmap.str, diskmap.str)

return diskmap
