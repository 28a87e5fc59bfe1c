--- walk.lua - walking over a map: by a loop, or step by step with positions from which any process can go on.
--
-- A walk meets every key that is there from its start to its end exactly once, in no useful order. The loop may change the map.
--
-- Positions are for going on after a stop, not for pages of a few keys: see Walk:position.

local ffi = require("ffi")
local C = require("opendiskmap.library")
local out = require("opendiskmap.out")
local status = require("opendiskmap.status")

local setmetatable = setmetatable
local bad_argument, failure, let_go, undecodable = status.bad_argument, status.failure, status.let_go, status.undecodable
local OK, DONE = C.ODM_OK, C.ODM_DONE

local key_out, key_size_out, key_size_of = out()
local value_out, value_size_out, value_size_of = out()
local position_out = ffi.new("uint64_t[1]")
local iter_out = ffi.new("odm_iter *[1]")

local Walk = {}
Walk.__index = Walk

local POSITION = "a position (a uint64_t, or an integer from 0 to 2^53)"

--- What else a number may be would be converted to some position, and half of the map left out.
local function is_position(value)
    if type(value) == "number" then
        return value >= 0 and value <= 2 ^ 53 and value % 1 == 0
    end
    return ffi.istype("uint64_t", value)
end

--- A walk over the map, from its start or from `position`. Or nil, message, code.
local function open(map, position)
    if position ~= nil and not is_position(position) then
        return bad_argument(1, "walk", POSITION, position)
    end
    local code = C.odm_iter_open(map.handle, iter_out)
    if code ~= OK then
        return failure(map, code)
    end
    local iter = ffi.gc(iter_out[0], C.odm_iter_close)
    if position then
        C.odm_iter_seek(iter, position)
    end
    return setmetatable({ map = map, iter = iter }, Walk)
end

--- Ends the walk, which the garbage collector would do, too.
function Walk:close()
    if self.iter ~= nil then
        C.odm_iter_close(ffi.gc(self.iter, nil))
        self.iter = nil
    end
    return true
end

--- nil at the end of a walk; nil, message, code if it could not go on.
local function stop(walk, code)
    if code == DONE then
        walk.over = true
        walk:close()
        return nil
    elseif walk.over then
        return nil
    elseif walk.map.handle == nil then
        return nil, "the map was closed during its walk", code
    elseif walk.iter == nil then
        return nil, "the walk is closed", code
    end
    return failure(walk.map, code)
end

--- The next key and value; nil at the end; nil, message, code.
function Walk:next()
    local code = C.odm_iter_next(self.iter, key_out, key_size_out, value_out, value_size_out)
    if code ~= OK then
        return stop(self, code)
    end
    local map = self.map
    local value_bytes, value_size = value_out[0], value_size_of[0] -- A codec of the program may walk, too.
    local key, problem = map.decode_key(key_out[0], key_size_of[0])
    if key == nil then
        return undecodable("key", map.key, problem)
    end
    local value
    value, problem = map.decode_value(value_bytes, value_size)
    let_go(map)
    if value == nil then
        return undecodable("value", map.value, problem)
    end
    return key, value
end

--- Walk:next() without the values.
function Walk:next_key()
    local code = C.odm_iter_next(self.iter, key_out, key_size_out, nil, nil)
    if code ~= OK then
        return stop(self, code)
    end
    local map = self.map
    local key, problem = map.decode_key(key_out[0], key_size_of[0])
    let_go(map)
    if key == nil then
        return undecodable("key", map.key, problem)
    end
    return key
end

--- Walk:next() without the keys.
function Walk:next_value()
    local code = C.odm_iter_next(self.iter, nil, nil, value_out, value_size_out)
    if code ~= OK then
        return stop(self, code)
    end
    local map = self.map
    local value, problem = map.decode_value(value_out[0], value_size_of[0])
    let_go(map)
    if value == nil then
        return undecodable("value", map.value, problem)
    end
    return value
end

--- A uint64_t from which a walk can go on, in any process. It is where the chunk of the index that is being read begins: the keys
-- of that chunk, some 4,096 at most and seldom more, are met again, and none is missed. So who stops each time after fewer keys
-- than a chunk has stays where he is, and never comes to the end.
function Walk:position()
    if self.over then
        return 0xffffffffffffffffULL
    end
    local code = C.odm_iter_position(self.iter, position_out)
    if code ~= OK then
        return stop(self, code)
    end
    return position_out[0]
end

--- Goes on from a position. true; or nil, message, code.
function Walk:seek(position)
    if not is_position(position) then
        return bad_argument(1, "seek", POSITION, position)
    end
    if self.over then
        if self.map.handle == nil then
            return failure(self.map)
        end
        local walk, message, code = open(self.map, position)
        if not walk then
            return nil, message, code
        end
        self.iter, self.over = walk.iter, nil
        return true
    end
    local code = C.odm_iter_seek(self.iter, position)
    if code == OK then
        return true
    end
    return stop(self, code)
end

-- ---- loops ------------------------------------------------------------------------------------------------------------

-- A generic for has no place for nil, message, code: what goes wrong in it is raised, so that no loop ends early unseen. The
-- three are written out, for a function that is passed in would be called by the loop, and not compiled into it.

local function raise(message)
    error(message, 3)
end

local function next_pair(walk)
    local key, value, code = walk:next()
    if key == nil and code then
        raise(value)
    end
    return key, value
end

local function next_key(walk)
    local key, message = walk:next_key()
    if message then
        raise(message)
    end
    return key
end

local function next_value(walk)
    local value, message = walk:next_value()
    if message then
        raise(message)
    end
    return value
end

--- for ... in: `step`, and the walk, which a program may take for itself: local step, walk = map:pairs().
local function loop(name, step)
    return function(map, position)
        if map.handle == nil then
            return failure(map)
        elseif position ~= nil and not is_position(position) then
            return bad_argument(1, name, POSITION, position)
        end
        local walk, message = open(map, position)
        if not walk then
            error(message, 2)
        end
        return step, walk, nil
    end
end

return {
    open = open,
    pairs = loop("pairs", next_pair),
    keys = loop("keys", next_key),
    values = loop("values", next_value),
}
