--- work.lua - long work: compact, verify, backup. In steps if a progress function is given, else in one call.
--
-- The function is called from here between two steps, when nothing of the library is running and no lock is held: it may use the
-- map, raise an error, or yield. If it answers false, or closes the map, the work ends there.

local ffi = require("ffi")
local C = require("opendiskmap.library")
local lender = require("opendiskmap.lender")
local status = require("opendiskmap.status")

local error, pcall = error, pcall
local bad_argument = status.bad_argument
local OK, DONE, CORRUPT = C.ODM_OK, C.ODM_DONE, C.ODM_E_CORRUPT
local STEP_MS = 10

--- Does step(handle, progress) until it is finished: its code; or nil if the program ended it, also by closing the map.
local function in_steps(map, step, report)
    if not report then
        return step(map.handle, nil)
    end
    local handle, code = lender.take(map) -- A refresh of the map's own handle would end the work.
    if not handle then
        return code
    end
    local progress = ffi.new("odm_progress", { struct_size = ffi.sizeof("odm_progress"), max_ms = STEP_MS })
    local returned, answer = true, nil
    repeat
        code = step(handle, progress)
        if code == OK then
            returned, answer = pcall(report, tonumber(progress.done), tonumber(progress.total))
            if not returned or answer == false or map.handle == nil then
                code = nil
            end
        end
    until code ~= OK
    lender.give(map, handle) -- Ends the work, whatever has become of it: a backup's directory is free for the next one.
    if not returned then
        error(answer, 0)
    end
    return code
end

--- Misuse that all three have in common.
local function is_callable(report)
    return report == nil or type(report) == "function"
end

local work = {}

--- Reclaims the room of all that was replaced or removed. progress(done, total), if given, is called about every 10 ms. true;
-- false if it was ended; nil, message, code.
function work.compact(map, progress)
    if not is_callable(progress) then
        return bad_argument(1, "compact", "a function or nothing", progress)
    elseif map.handle == nil then
        return status.failure(map)
    end
    local detail = status.new_detail()
    local code = in_steps(map, function(handle, steps)
        return C.odm_compact(handle, steps, detail)
    end, progress)
    if code == nil then
        return false
    elseif code == OK or code == DONE then
        return map:refresh() -- Or what this map has read would keep the room.
    end
    return status.detailed(code, detail)
end

--- Reads and checks every record and every slot of the index. A table, also of a map that is damaged: ok; damage, which tells
-- what the first damage is and where, nil if all is sound; records, bytes, bad_records, bad_slots, bad_number and bad_offset
-- (segment and byte of the first that is bad). false if it was ended; nil, message, code.
function work.verify(map, progress)
    if not is_callable(progress) then
        return bad_argument(1, "verify", "a function or nothing", progress)
    elseif map.handle == nil then
        return status.failure(map)
    end
    local detail = status.new_detail()
    local report = ffi.new("odm_report", { struct_size = ffi.sizeof("odm_report") })
    local code = in_steps(map, function(handle, steps)
        return C.odm_verify(handle, report, steps, detail)
    end, progress)
    if code == nil then
        return false
    elseif code ~= OK and code ~= DONE and code ~= CORRUPT then
        return status.detailed(code, detail)
    end
    local found = { ok = code ~= CORRUPT }
    if code == CORRUPT then
        local _, damage = status.detailed(code, detail)
        found.damage = damage
    end
    for _, name in ipairs({ "records", "bytes", "bad_records", "bad_slots", "bad_number", "bad_offset" }) do
        found[name] = tonumber(report[name])
    end
    return found
end

--- Copies the map into the directory `path`, which must be absent or empty, while others may write. true; false if it was ended;
-- nil, message, code.
function work.backup(map, path, progress)
    if type(path) ~= "string" or path:find("\0", 1, true) then
        return bad_argument(1, "backup", "a path", path)
    elseif not is_callable(progress) then
        return bad_argument(2, "backup", "a function or nothing", progress)
    elseif map.handle == nil then
        return status.failure(map)
    end
    local detail = status.new_detail()
    local code = in_steps(map, function(handle, steps)
        return C.odm_backup(handle, path, steps, detail)
    end, progress)
    if code == nil then
        return false
    elseif code == OK or code == DONE then
        return true
    end
    return status.detailed(code, detail)
end

return work
