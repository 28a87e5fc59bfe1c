--- many.lua - many keys in one call of the library: many gets, or puts, inserts and removes mixed.
--
-- Keys and values are packed in buffers that grow and are kept. Encoded bytes are copied before the next key's are made.

local ffi = require("ffi")
local C = require("opendiskmap.library")
local COPY_MAX = require("opendiskmap.encodings").COPY_MAX
local status = require("opendiskmap.status")

local copy, new, tonumber = ffi.copy, ffi.new, tonumber
local bad_argument, failure, let_go, undecodable = status.bad_argument, status.failure, status.let_go, status.undecodable
local OK, ABSENT = C.ODM_OK, 0xffffffffffffffffULL

--- Bytes after one another.
local function packed()
    return { bytes = new("uint8_t[?]", 4096), room = 4096, size = 0 }
end

--- Where the bytes end now; nil if there is no room for them.
local function append(pack, bytes, size)
    local needed = pack.size + size
    if needed > pack.room then
        if needed > COPY_MAX then
            return nil
        end
        local room = math.max(needed, math.min(2 * pack.room, COPY_MAX))
        local larger = new("uint8_t[?]", room)
        copy(larger, pack.bytes, pack.size)
        pack.bytes, pack.room = larger, room
    end
    copy(pack.bytes + pack.size, bytes, size)
    pack.size = needed
    return needed
end

-- Buffers that no call is using. A call has some for itself, for a codec of the program's own may do a batch on another map,
-- or yield. Those of a call that was refused, or never went on, are left to the garbage collector.
local idle = {}

local function take(count)
    local buffers = idle[#idle]
    if buffers then
        idle[#idle] = nil
    else
        buffers = { count = new("size_t[1]"), keys = packed(), packed_values = packed(), room = 0 }
    end
    if count > buffers.room then
        local room = math.max(64, count)
        buffers.key_ends, buffers.value_ends = new("uint64_t[?]", room), new("uint64_t[?]", room)
        buffers.values, buffers.sizes = new("const void *[?]", room), new("uint64_t[?]", room)
        buffers.ops, buffers.outcomes = new("uint8_t[?]", room), new("uint8_t[?]", room)
        buffers.room = room
    end
    buffers.count[0] = count
    buffers.keys.size, buffers.packed_values.size = 0, 0
    return buffers
end

local function give(buffers)
    idle[#idle + 1] = buffers
end

local function too_big(what)
    local message = ("the %s of one call may have %d bytes: make several calls of it"):format(what, COPY_MAX)
    return nil, message, C.ODM_E_TOO_BIG
end

local many = {}

--- The values of a list of keys, in a table (`out`, if one is given): out[i] is that of keys[i], nil if it is absent. Each was
-- current at some moment of the call. Or nil, message, code.
function many.get(map, list, out)
    if type(list) ~= "table" then
        return bad_argument(1, "get_many", "a table", list)
    elseif out ~= nil and type(out) ~= "table" then
        return bad_argument(2, "get_many", "a table or nothing", out)
    end
    local count = #list
    out = out or {}
    local buffers = take(count)
    local keys, key_ends, found, sizes = buffers.keys, buffers.key_ends, buffers.values, buffers.sizes
    for i = 1, count do
        local bytes, size = map.encode_key(list[i])
        if not bytes then
            return bad_argument(1, "get_many", ("%s as key %d"):format(size, i), list[i])
        end
        local key_end = append(keys, bytes, size)
        if not key_end then
            return too_big("keys")
        end
        key_ends[i - 1] = key_end
    end
    local code = C.odm_get_many(map.handle, buffers.count, keys.bytes, key_ends, found, sizes)
    if code ~= OK then
        give(buffers)
        return failure(map, code)
    end
    for i = 1, count do
        local value, problem
        if sizes[i - 1] ~= ABSENT then
            value, problem = map.decode_value(found[i - 1], tonumber(sizes[i - 1]))
            if value == nil then
                give(buffers)
                let_go(map)
                return undecodable(("value of key %d"):format(i), map.value, problem)
            end
        end
        out[i] = value
    end
    give(buffers)
    let_go(map)
    return out
end

local operations = { put = C.ODM_OP_PUT, insert = C.ODM_OP_INSERT, remove = C.ODM_OP_REMOVE }

--- Packs a list of operations; or false and what is wrong with which; or nil and what was too much.
local function pack(map, list, buffers)
    local keys, values = buffers.keys, buffers.packed_values
    for i = 1, #list do
        local item = list[i]
        local name = type(item) == "table" and item[1]
        local operation = operations[name]
        if not operation then
            return false, ("{'put', key, value}, {'insert', key, value} or {'remove', key} as item %d"):format(i)
        end
        buffers.ops[i - 1] = operation
        local bytes, size = map.encode_key(item[2])
        if not bytes then
            return false, ("%s as key of item %d"):format(size, i)
        end
        local key_end, value_end = append(keys, bytes, size), values.size
        if name == "remove" then
            if item[3] ~= nil then
                return false, ("no value as item %d is a remove"):format(i)
            end
        else
            bytes, size = map.encode_value(item[3])
            if not bytes then
                return false, ("%s as value of item %d"):format(size, i)
            end
            value_end = append(values, bytes, size)
        end
        if not key_end or not value_end then
            return nil, key_end and "values" or "keys"
        end
        buffers.key_ends[i - 1], buffers.value_ends[i - 1] = key_end, value_end
    end
    return true
end

--- Does a list of {"put", key, value}, {"insert", key, value} and {"remove", key}, strictly in order; others see them one by one.
-- A list of outcomes: false where an insert found its key or a remove did not, else true. Or nil, message, code, outcomes: those
-- of the first operations, which are done, while the others are not.
function many.write(map, list)
    if type(list) ~= "table" then
        return bad_argument(1, "write_many", "a table", list)
    end
    local buffers = take(#list)
    local packed_all, problem = pack(map, list, buffers)
    if packed_all == false then
        return bad_argument(1, "write_many", problem, list)
    elseif not packed_all then
        local _, message, too_big_code = too_big(problem)
        return nil, message, too_big_code, {}
    end
    local code = C.odm_write_many(map.handle, buffers.count, buffers.ops, buffers.keys.bytes, buffers.key_ends,
        buffers.packed_values.bytes, buffers.value_ends, buffers.outcomes)
    local outcomes = {}
    for i = 1, tonumber(buffers.count[0]) do
        outcomes[i] = buffers.outcomes[i - 1] == OK
    end
    give(buffers)
    if code == OK then
        let_go(map)
        return outcomes
    elseif map.handle == nil then
        return failure(map, code)
    end
    local _, message = failure(map, code)
    return nil, message, code, outcomes
end

return many
