--- many.lua - many keys in one call of the library: many gets, or puts, inserts and removes mixed.
--
-- Keys and values are packed in buffers that grow and are kept. Encoded bytes are copied before the next key's are made.

local ffi = require("ffi")
local C = require("opendiskmap.library")
local status = require("opendiskmap.status")

local copy, new, tonumber = ffi.copy, ffi.new, tonumber
local bad_argument, failure, let_go, undecodable = status.bad_argument, status.failure, status.let_go, status.undecodable
local OK, ABSENT = C.ODM_OK, 0xffffffffffffffffULL

local count_out = new("size_t[1]")

--- Bytes after one another, and where each ends.
local function packed()
    return { bytes = new("uint8_t[?]", 4096), room = 4096, size = 0 }
end

local function append(pack, bytes, size)
    local needed = pack.size + size
    if needed > pack.room then
        local room = pack.room * 2
        while room < needed do
            room = room * 2
        end
        local larger = new("uint8_t[?]", room)
        copy(larger, pack.bytes, pack.size)
        pack.bytes, pack.room = larger, room
    end
    copy(pack.bytes + pack.size, bytes, size)
    pack.size = needed
    return needed
end

local keys, values = packed(), packed()
local arrays = { room = 0 }

local function make_room(count)
    if count > arrays.room then
        arrays.room = math.max(64, count)
        arrays.key_ends, arrays.value_ends = new("uint64_t[?]", arrays.room), new("uint64_t[?]", arrays.room)
        arrays.values, arrays.sizes = new("const void *[?]", arrays.room), new("uint64_t[?]", arrays.room)
        arrays.ops, arrays.outcomes = new("uint8_t[?]", arrays.room), new("uint8_t[?]", arrays.room)
    end
    keys.size, values.size = 0, 0
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
    make_room(count)
    for i = 1, count do
        local bytes, size = map.encode_key(list[i])
        if not bytes then
            return bad_argument(1, "get_many", ("%s as key %d"):format(size, i), list[i])
        end
        arrays.key_ends[i - 1] = append(keys, bytes, size)
    end
    count_out[0] = count
    local handle, found, sizes = map.handle, arrays.values, arrays.sizes
    local code = C.odm_get_many(handle, count_out, keys.bytes, arrays.key_ends, found, sizes)
    if code ~= OK then
        return failure(map, code)
    end
    for i = 1, count do
        local value, problem
        if sizes[i - 1] ~= ABSENT then
            value, problem = map.decode_value(found[i - 1], tonumber(sizes[i - 1]))
            if value == nil then
                let_go(map)
                return undecodable(("value of key %d"):format(i), map.value, problem)
            end
        end
        out[i] = value
    end
    let_go(map)
    return out
end

local operations = { put = C.ODM_OP_PUT, insert = C.ODM_OP_INSERT, remove = C.ODM_OP_REMOVE }

--- Packs a list of operations; or nil and what is wrong with which.
local function pack(map, list)
    for i = 1, #list do
        local item = list[i]
        local name = type(item) == "table" and item[1]
        local operation = operations[name]
        if not operation then
            return nil, ("{'put', key, value}, {'insert', key, value} or {'remove', key} as item %d"):format(i)
        end
        arrays.ops[i - 1] = operation
        local bytes, size = map.encode_key(item[2])
        if not bytes then
            return nil, ("%s as key of item %d"):format(size, i)
        end
        arrays.key_ends[i - 1] = append(keys, bytes, size)
        if name == "remove" then
            if item[3] ~= nil then
                return nil, ("no value as item %d is a remove"):format(i)
            end
        else
            bytes, size = map.encode_value(item[3])
            if not bytes then
                return nil, ("%s as value of item %d"):format(size, i)
            end
            append(values, bytes, size)
        end
        arrays.value_ends[i - 1] = values.size
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
    local count = #list
    make_room(count)
    local packed_all, expected = pack(map, list)
    if not packed_all then
        return bad_argument(1, "write_many", expected, list)
    end
    count_out[0] = count
    local code = C.odm_write_many(map.handle, count_out, arrays.ops, keys.bytes, arrays.key_ends, values.bytes,
        arrays.value_ends, arrays.outcomes)
    local outcomes = {}
    for i = 1, tonumber(count_out[0]) do
        outcomes[i] = arrays.outcomes[i - 1] == OK
    end
    if code == OK then
        return outcomes
    elseif map.handle == nil then
        return failure(map, code)
    end
    local _, message = failure(map, code)
    return nil, message, code, outcomes
end

return many
