--- entry.lua - an entry: a key, the value it had, and the version at which it had it. No lock is held meanwhile.
--
-- entry.value is nil if the entry was vacant. put and remove write only if nothing has changed since; the others look again and
-- go on until they are not disturbed.

local ffi = require("ffi")
local C = require("opendiskmap.library")
local out = require("opendiskmap.out")
local status = require("opendiskmap.status")

local bad_argument, failure, let_go, undecodable = status.bad_argument, status.failure, status.let_go, status.undecodable
local OK, NOT_FOUND, EXISTS, CONFLICT = C.ODM_OK, C.ODM_NOT_FOUND, C.ODM_EXISTS, C.ODM_CONFLICT

local value_out, size_out, size_of = out()
local version_out = ffi.new("uint64_t[1]")

local Entry = {}
Entry.__index = Entry

--- Looks (again) what the entry's key holds. The entry; or nil, message, code.
local function look(entry)
    local map = entry.map
    local bytes, size = map.encode_key(entry.key)
    local handle = map.handle
    local code = C.odm_entry_get(handle, bytes, size, value_out, size_out, version_out)
    if code ~= OK and code ~= NOT_FOUND then
        return failure(map, code)
    end
    entry.value, entry.version = nil, version_out[0]
    if code == OK then
        local problem
        entry.value, problem = map.decode_value(value_out[0], size_of[0])
        let_go(map)
        if entry.value == nil then
            return undecodable("value", map.value, problem)
        end
    end
    return entry
end

--- Whether the key was there.
function Entry:is_occupied()
    return self.value ~= nil
end

--- Puts an encoded value if nothing has changed since the entry was looked at. true; false if somebody was faster; nil, message,
-- code.
local function write(entry, value_bytes, value_size)
    local map = entry.map
    local bytes, size = map.encode_key(entry.key)
    local code = C.odm_entry_put(map.handle, bytes, size, value_bytes, value_size, entry.version)
    if code == OK then
        return true
    elseif code == EXISTS or code == CONFLICT then
        return false
    end
    return failure(map, code)
end

--- Puts `value` if nothing has changed since the entry was looked at. To write again, take a new entry. true; false if somebody
-- was faster; nil, message, code.
function Entry:put(value)
    local bytes, size = self.map.encode_value(value)
    if not bytes then
        return bad_argument(1, "put", size, value)
    end
    return write(self, bytes, size)
end

--- Removes the key if nothing has changed since. true; false if somebody was faster, or the entry is vacant; nil, message, code.
function Entry:remove()
    if self.value == nil then
        return false
    end
    local map = self.map
    local bytes, size = map.encode_key(self.key)
    local code = C.odm_entry_remove(map.handle, bytes, size, self.version)
    if code == OK then
        return true
    elseif code == CONFLICT then
        return false
    end
    return failure(map, code)
end

--- The value; where there is none, what `make` gives, which is put, as it is when it is read. Or nil, message, code. To be
-- tail-called, as it raises.
local function or_insert_with(entry, make, ...)
    local map = entry.map
    while entry.value == nil do
        local value = make(...)
        local bytes, size = map.encode_value(value)
        if not bytes then
            return bad_argument(1, "or_insert_with", "a function that answers " .. size, value)
        elseif map.handle == nil then
            return failure(map)
        end
        local inserted, message, code = write(entry, bytes, size)
        if inserted then
            entry.value, message = map.decode_value(bytes, size)
            if entry.value == nil then
                return undecodable("value", map.value, message)
            end
        elseif inserted == nil then
            return nil, message, code
        else
            local found
            found, message, code = look(entry)
            if not found then
                return nil, message, code
            end
        end
    end
    return entry.value
end

local function itself(value)
    return value
end

--- The value; or `value`, which is put if the entry is vacant, now too. Or nil, message, code.
function Entry:or_insert(value)
    local bytes, expected = self.map.encode_value(value)
    if not bytes then
        return bad_argument(1, "or_insert", expected, value)
    end
    return or_insert_with(self, itself, value)
end

--- As or_insert, with what make(...) answers, which is called only if it is needed.
function Entry:or_insert_with(make, ...)
    if type(make) ~= "function" then
        return bad_argument(1, "or_insert_with", "a function", make)
    end
    return or_insert_with(self, make, ...)
end

--- If the entry is occupied, puts fn(value, ...), called again if somebody was faster. The entry, for or_insert to follow. Or
-- nil, message, code.
function Entry:and_modify(fn, ...)
    if type(fn) ~= "function" then
        return bad_argument(1, "and_modify", "a function", fn)
    end
    while self.value ~= nil do
        local value = fn(self.value, ...)
        local bytes, size = self.map.encode_value(value)
        if not bytes then
            return bad_argument(1, "and_modify", "a function that answers " .. size, value)
        elseif self.map.handle == nil then
            return failure(self.map)
        end
        local written, message, code = write(self, bytes, size)
        if written == nil then
            return nil, message, code
        end
        local found
        found, message, code = look(self)
        if not found then
            return nil, message, code
        elseif written then
            return self
        end
    end
    return self
end

return {
    --- The entry of `key`, which must be one that can be encoded. Or nil, message, code.
    find = function(map, key)
        return look(setmetatable({ map = map, key = key }, Entry))
    end,
    write = write,
}
