--- map.lua - an open map: the operations on one key, and on the map as a whole.
--
-- A hot function is: encode into buffers made once, one call of the library, decode. Nothing in it stops LuaJIT's trace
-- compiler. What it got from the library is copied before it returns; then the handle is refreshed, which lets go of it.
--
-- Encoded bytes are good until code of the program's own runs (an update's function, a codec): they are made after it.

local ffi = require("ffi")
local C = require("opendiskmap.library")
local entry = require("opendiskmap.entry")
local lender = require("opendiskmap.lender")
local many = require("opendiskmap.many")
local out = require("opendiskmap.out")
local status = require("opendiskmap.status")
local walk = require("opendiskmap.walk")
local work = require("opendiskmap.work")

local pcall, setmetatable, tonumber, type = pcall, setmetatable, tonumber, type
local bad_argument, failure, let_go, undecodable = status.bad_argument, status.failure, status.let_go, status.undecodable
local OK, NOT_FOUND, EXISTS, CONFLICT = C.ODM_OK, C.ODM_NOT_FOUND, C.ODM_EXISTS, C.ODM_CONFLICT

local int64 = ffi.typeof("int64_t")
local value_out, size_out, size_of = out()
local version_out = ffi.new("uint64_t[1]")
local statistics = ffi.new("odm_statistics")

local Map = {}

-- ---- one key --------------------------------------------------------------------------------------------------------

--- The value of `key`; nil if there is none; nil, message, code if the map could not tell.
function Map:get(key)
    local bytes, size = self.encode_key(key)
    if not bytes then
        return bad_argument(1, "get", size, key)
    end
    local handle = self.handle
    local code = C.odm_get(handle, bytes, size, value_out, size_out)
    if code == OK then
        local value, problem = self.decode_value(value_out[0], size_of[0])
        let_go(self)
        if value == nil then
            return undecodable("value", self.value, problem)
        end
        return value
    elseif code == NOT_FOUND then
        return nil
    end
    return failure(self, code)
end

--- Whether `key` is there; nil, message, code if the map could not tell.
function Map:has(key)
    local bytes, size = self.encode_key(key)
    if not bytes then
        return bad_argument(1, "has", size, key)
    end
    local code = C.odm_get(self.handle, bytes, size, nil, nil)
    if code == OK then
        return true
    elseif code == NOT_FOUND then
        return false
    end
    return failure(self, code)
end

--- Sets the value of `key`, whether it was there or not. true; or nil, message, code, and the map is as before.
function Map:put(key, value)
    local value_bytes, value_size = self.encode_value(value)
    if not value_bytes then
        return bad_argument(2, "put", value_size, value)
    end
    local bytes, size = self.encode_key(key)
    if not bytes then
        return bad_argument(1, "put", size, key)
    end
    local code = C.odm_put(self.handle, bytes, size, value_bytes, value_size)
    if code == OK then
        let_go(self)
        return true
    end
    return failure(self, code)
end

--- Removes `key`. true; false if it was not there; nil, message, code.
function Map:remove(key)
    local bytes, size = self.encode_key(key)
    if not bytes then
        return bad_argument(1, "remove", size, key)
    end
    local code = C.odm_remove(self.handle, bytes, size)
    if code == OK then
        let_go(self)
        return true
    elseif code == NOT_FOUND then
        return false
    end
    return failure(self, code)
end

--- Puts only if `key` is absent. true; false if it was there; nil, message, code.
function Map:insert(key, value)
    local value_bytes, value_size = self.encode_value(value)
    if not value_bytes then
        return bad_argument(2, "insert", value_size, value)
    end
    local bytes, size = self.encode_key(key)
    if not bytes then
        return bad_argument(1, "insert", size, key)
    end
    local code = C.odm_entry_put(self.handle, bytes, size, value_bytes, value_size, 0)
    if code == OK then
        let_go(self)
        return true
    elseif code == EXISTS then
        return false
    end
    return failure(self, code)
end

-- ---- read, decide, write only if nothing changed: if somebody was faster, again from the start --------------------------

--- The entry of `key` as it is now, vacant or occupied: see entry.lua. Or nil, message, code.
function Map:entry(key)
    local bytes, size = self.encode_key(key)
    if not bytes then
        return bad_argument(1, "entry", size, key)
    end
    if self.handle == nil then
        return failure(self)
    end
    return entry.find(self, key)
end

--- The value of `key`, as a get answers it, which is `value` if there was none, and whether it was put. Or nil, message, code.
function Map:get_or_insert(key, value)
    local bytes, size = self.encode_value(value)
    if not bytes then
        return bad_argument(2, "get_or_insert", size, value)
    end
    bytes, size = self.encode_key(key)
    if not bytes then
        return bad_argument(1, "get_or_insert", size, key)
    end
    if self.handle == nil then
        return failure(self)
    end
    local found, message, code = self:get(key)
    if found ~= nil then
        return found, false
    elseif message then
        return nil, message, code
    end
    local inserted
    inserted, message, code = self:insert(key, value)
    if inserted then
        found, message = self.decode_value(self.encode_value(value))
        if found == nil then
            return undecodable("value", self.value, message)
        end
        return found, true
    elseif inserted == nil then
        return nil, message, code
    end
    return self:get_or_insert(key, value)
end

--- Sets the value to fn(the value now, or nil, ...), and returns what a get would now; fn is called again if somebody else was
-- faster. If fn answers nil the key is removed. Or nil, message, code.
function Map:update(key, fn, ...)
    local bytes, size = self.encode_key(key)
    if not bytes then
        return bad_argument(1, "update", size, key)
    end
    if type(fn) ~= "function" then
        return bad_argument(2, "update", "a function", fn)
    end
    if self.handle == nil then
        return failure(self)
    end
    local found, message, code = entry.find(self, key)
    if not found then
        return nil, message, code
    end
    local value = fn(found.value, ...)
    local written
    if value ~= nil then
        bytes, size = self.encode_value(value)
        if not bytes then
            return bad_argument(2, "update", "a function that answers " .. size, value)
        elseif self.handle == nil then
            return failure(self)
        end
        written, message, code = entry.write(found, bytes, size)
        if written then
            value, message = self.decode_value(bytes, size)
            if value == nil then
                return undecodable("value", self.value, message)
            end
        end
    elseif found.value == nil then
        return nil
    elseif self.handle == nil then
        return failure(self)
    else
        written, message, code = found:remove()
    end
    if written then
        return value
    elseif written == nil then
        return nil, message, code
    end
    return self:update(key, fn, ...)
end

local can_add = {}
for name in ("u8 u16 u32 i8 i16 i32 f32 f64 u53"):gmatch("%w+") do
    can_add[name] = function(by)
        return type(by) == "number"
    end
end
--- What is added to 64 bits is made an integer of 64 bits: nothing may be lost on the way.
local function is_whole(by)
    return type(by) == "number" and by % 1 == 0 and by > -2 ^ 53 and by < 2 ^ 53
end
function can_add.u64(by)
    return is_whole(by) or ffi.istype("uint64_t", by) or ffi.istype("int64_t", by)
end
function can_add.i64(by)
    return is_whole(by) or ffi.istype("int64_t", by)
end

--- Adds `by` (1 if it is left out) to the number under `key`, which counts as 0 if it is absent, and returns the sum. Or nil,
-- message, code, also if the sum is no value of the map's encoding.
function Map:increment(key, by)
    by = by == nil and 1 or by
    local fits = can_add[self.value.name]
    if not fits then
        error("bad call to 'increment' (the map's values are no numbers)", 2)
    elseif not fits(by) then
        return bad_argument(2, "increment", "a number that can be added to " .. self.value.name, by)
    end
    local bytes, size = self.encode_key(key)
    if not bytes then
        return bad_argument(1, "increment", size, key)
    end
    local handle = self.handle
    local code = C.odm_entry_get(handle, bytes, size, value_out, size_out, version_out)
    local sum = by
    if code == OK then
        local value, problem = self.decode_value(value_out[0], size_of[0])
        let_go(self)
        if value == nil then
            return undecodable("value", self.value, problem)
        end
        -- As a number, a negative one would be converted to uint64_t, which gives what the machine likes.
        sum = value + (type(value) == "cdata" and type(by) == "number" and int64(by) or by)
        -- Past the end of 64 bits a sum comes back from the other side.
        if type(sum) == "cdata" and (by < 0) ~= (sum < value) and by ~= 0 then
            sum = nil
        end
    elseif code ~= NOT_FOUND then
        return failure(self, code)
    end
    local stored = sum ~= nil and self.encode_value(sum)
    if not stored then
        return nil, ("the sum is no %s"):format(self.value.name), C.ODM_E_INVALID
    end
    code = C.odm_entry_put(handle, bytes, size, stored, self.value.size, version_out[0])
    if code == OK then
        return self.value.read(stored, 0)
    elseif code == EXISTS or code == CONFLICT then
        return self:increment(key, by)
    end
    return failure(self, code)
end

--- Whether bytes of the map are `expected`, which is the bytes `text` when it is encoded. Or nil and why they are no value.
local function is_stored(map, bytes, size, text)
    local same = map.value.same
    if not same then
        return size == #text and ffi.string(bytes, size) == text
    end
    local value, problem = map.decode_value(bytes, size)
    if value == nil then
        return nil, problem
    end
    return same(value, (map.decode_value(text, #text))) -- What was to be expected as it is when it was stored.
end

--- Puts `value` only if the value now is `expected`: the same bytes, of json the same value; nil: absent. true; false if it is
-- another; nil, message, code.
function Map:compare_and_set(key, expected, value)
    if expected == nil then
        local value_bytes, value_size = self.encode_value(value)
        if not value_bytes then
            return bad_argument(3, "compare_and_set", value_size, value)
        end
        return Map.insert(self, key, value)
    end
    local bytes, size = self.encode_value(expected)
    if not bytes then
        return bad_argument(2, "compare_and_set", size, expected)
    end
    local text = ffi.string(bytes, size)
    local value_bytes, value_size = self.encode_value(value)
    if not value_bytes then
        return bad_argument(3, "compare_and_set", value_size, value)
    end
    bytes, size = self.encode_key(key)
    if not bytes then
        return bad_argument(1, "compare_and_set", size, key)
    end
    local handle = self.handle
    local code = C.odm_entry_get(handle, bytes, size, value_out, size_out, version_out)
    if code == OK then
        local same, problem = is_stored(self, value_out[0], size_of[0], text)
        let_go(self)
        if same == nil then
            return undecodable("value", self.value, problem)
        elseif not same then
            return false
        end
        code = C.odm_entry_put(handle, bytes, size, value_bytes, value_size, version_out[0])
    end
    if code == OK then
        return true
    elseif code == NOT_FOUND then
        return false
    elseif code == CONFLICT then
        return self:compare_and_set(key, expected, value)
    end
    return failure(self, code)
end

-- ---- in place ---------------------------------------------------------------------------------------------------------

--- Ends a view. What its function raised is raised again.
local function view_end(map, lent_by, view, returned, ...)
    if type(view) == "table" then
        view[1] = false
    end
    lender.give(map, lent_by)
    if not returned then
        error((...), 0)
    end
    return ...
end

--- Calls fn on the value of `key` where it lies in the map, without a copy, and returns what fn does; nil if there is no such
-- key. fn gets the view of a struct and `...`; of any other encoding a pointer and the size in bytes, then `...`. They are
-- good until fn returns, whatever is done to the map meanwhile. Or nil, message, code.
function Map:view(key, fn, ...)
    if type(fn) ~= "function" then
        return bad_argument(2, "view", "a function", fn)
    end
    local bytes, size = self.encode_key(key)
    if not bytes then
        return bad_argument(1, "view", size, key)
    end
    if self.handle == nil then
        return failure(self)
    end
    local lent_by, code = lender.take(self)
    if not lent_by then
        return failure(self, code)
    end
    code = C.odm_get(lent_by, bytes, size, value_out, size_out)
    if code == OK then
        size = size_of[0]
        local view, problem = self.view_value(value_out[0], size, lent_by)
        if view == nil then
            lender.give(self, lent_by)
            return undecodable("value", self.value, problem)
        elseif type(view) == "table" then
            return view_end(self, lent_by, view, pcall(fn, view, ...))
        end
        return view_end(self, lent_by, view, pcall(fn, view, size, ...))
    end
    if code == NOT_FOUND then
        lender.give(self, lent_by)
        return nil
    end
    local detail = status.new_detail()
    C.odm_last_error(lent_by, detail)
    lender.give(self, lent_by)
    return status.detailed(code, detail)
end

-- ---- many keys, walks, long work: see there ----------------------------------------------------------------------------

Map.get_many = many.get
Map.write_many = many.write
Map.walk = walk.open
Map.pairs = walk.pairs
Map.keys = walk.keys
Map.values = walk.values
Map.compact = work.compact
Map.verify = work.verify
Map.backup = work.backup

-- ---- the map as a whole ------------------------------------------------------------------------------------------------

--- Removes every key that was there. true; or nil, message, code.
function Map:clear()
    local code = C.odm_clear(self.handle, nil)
    if code == OK then
        return true
    end
    return failure(self, code)
end

--- Everything put or removed before, by any process, survives power loss after this. true; or nil, message, code.
function Map:sync()
    local code = C.odm_sync(self.handle, nil)
    if code == OK then
        return true
    end
    return failure(self, code)
end

--- Entries in the map: exact while nobody is writing.
function Map:count()
    if self.handle == nil then
        return failure(self)
    end
    return tonumber(C.odm_count(self.handle))
end

--- Lets go of the disk space that this map's reads have passed over. Later reads and writes do it by themselves; a program
-- that keeps a map open and leaves it alone for long calls this from time to time. true; or nil, message, code.
function Map:refresh()
    for _, handle in ipairs(self.lenders) do
        C.odm_refresh(handle)
    end
    local code = C.odm_refresh(self.handle)
    if code == OK then
        return true
    end
    return failure(self, code)
end

local statistics_names = {
    "stripes", "count", "slots", "capacity", "tombstones", "live_bytes", "log_bytes", "dead_bytes", "reserved_bytes",
    "index_bytes", "unlinked_bytes", "segments", "head", "tail", "watermark", "splits", "lock_waits", "compacted_bytes",
    "compaction_stopped_at", "recovery_records", "recovery_bytes_cut", "recovery_from",
}
local recovery_names = { [0] = "none", "kept", "cut", "private", "salvaged" }

--- What odm_statistics has, as a table of numbers; recovery_kind is "none", "kept", "cut", "private" or "salvaged", sync_failed
-- true or false, map_id 32 hexadecimal digits. Or nil, message, code.
function Map:stat()
    ffi.fill(statistics, ffi.sizeof(statistics))
    statistics.struct_size = ffi.sizeof(statistics)
    local code = C.odm_stat(self.handle, statistics)
    if code ~= OK then
        return failure(self, code)
    end
    local result = {
        recovery_kind = recovery_names[statistics.recovery_kind],
        sync_failed = statistics.sync_failed ~= 0,
        map_id = ffi.string(statistics.map_id, 16):gsub(".", function(byte)
            return ("%02x"):format(byte:byte())
        end),
    }
    for _, name in ipairs(statistics_names) do
        result[name] = tonumber(statistics[name])
    end
    return result
end

--- Entries the index has room for as it is. Or nil, message, code.
function Map:capacity()
    if self.handle == nil then
        return failure(self)
    end
    local statistic, message, code = self:stat()
    if not statistic then
        return nil, message, code
    end
    return statistic.capacity
end

--- Entries per slot of the index, from 0 to 1. Or nil, message, code.
function Map:load_factor()
    if self.handle == nil then
        return failure(self)
    end
    local statistic, message, code = self:stat()
    if not statistic then
        return nil, message, code
    end
    return statistic.slots == 0 and 0 or statistic.count / statistic.slots
end

--- The schema the map was made with, such as "str/u64"; "" if it has none. Or nil, message, code.
function Map:schema()
    local code = C.odm_schema(self.handle, value_out, size_out)
    if code ~= OK then
        return failure(self, code)
    end
    return ffi.string(value_out[0], size_of[0])
end

--- Whether close was not called yet.
function Map:is_open()
    return self.handle ~= nil
end

--- Closes the map: true. Once more does nothing. A view that is in use stays good to its end, a walk raises an error. A map that
-- is forgotten is closed by the garbage collector.
function Map:close()
    local handle = self.handle
    if handle == nil then
        return true
    end
    self.handle = nil
    for i, lent_by in ipairs(self.lenders) do
        self.lenders[i] = nil
        C.odm_close(ffi.gc(lent_by, nil))
    end
    C.odm_close(ffi.gc(handle, nil))
    return true
end

-- ---- made by opendiskmap.lua -------------------------------------------------------------------------------------------

local class = { __index = Map }

-- Stock LuaJIT does not ask tables for these two; builds with its 5.2 compatibility do.
class.__len = Map.count
class.__pairs = function(map)
    return map:pairs()
end

function class.__tostring(map)
    return ("opendiskmap: %s%s"):format(map.path or "in memory", map.handle == nil and " (closed)" or "")
end

--- A map over an open handle.
return function(handle, path, key, value, codecs)
    return setmetatable({
        handle = ffi.gc(handle, C.odm_close),
        path = path,
        key = key,
        value = value,
        encode_key = codecs.encode_key,
        decode_key = codecs.decode_key,
        encode_value = codecs.encode_value,
        decode_value = codecs.decode_value,
        view_value = codecs.view_value,
        calls_left = 1, -- see status.let_go
        lenders = {}, -- see lender.lua
    }, class)
end
