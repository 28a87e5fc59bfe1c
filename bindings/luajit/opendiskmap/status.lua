--- status.lua - how calls answer: failures as nil, message, code; misuse as an error at the caller's level.
--
-- What raises must be tail-called, as `return failure(...)`: then level 2 is the line of the program's own code.

local ffi = require("ffi")
local C = require("opendiskmap.library")

local status = {}

--- Where a cold function of the library tells what went wrong. A new one a call: the program may run in between.
function status.new_detail()
    return ffi.new("odm_error", { struct_size = ffi.sizeof("odm_error") })
end

--- nil, message, code of a call that answered `code` and filled in `detail`.
function status.detailed(code, detail)
    if detail.status == code and detail.message[0] ~= 0 then
        return nil, ffi.string(detail.message), code
    end
    return nil, ffi.string(C.odm_status_message(code)), code
end

--- nil, message, code of a call on `map` that answered `code`. Raises if the map is closed.
function status.failure(map, code)
    if map.handle == nil then
        error("the map is closed", 2)
    end
    local detail = status.new_detail()
    C.odm_last_error(map.handle, detail)
    return status.detailed(code, detail)
end

--- Raises: argument `position` of `name` is not what was `expected`.
function status.bad_argument(position, name, expected, value)
    local got = type(value)
    if got == "cdata" then
        got = tostring(ffi.typeof(value))
    elseif got == "number" then
        got = tostring(value)
    end
    error(("bad argument #%d to '%s' (%s expected, got %s)"):format(position, name, expected, got), 2)
end

--- nil, message, code for bytes that are no value of the map's encoding.
function status.undecodable(what, encoding, problem)
    return nil, ("the %s is no %s: %s"):format(what, encoding.name, problem), C.ODM_E_MISMATCH
end

local CALLS_PER_REFRESH = 64

--- To be called after what the map's handle lent was copied, and after writes. Refreshing it each time would cost more than the
-- rest of a get: a read-only handle asks the system for a newer index then. The handles that are not in use are refreshed with
-- it: they would keep the files of which they were used last, although others have replaced all that was in them.
function status.let_go(map)
    local left = map.calls_left - 1
    if left == 0 then
        left = CALLS_PER_REFRESH
        C.odm_refresh(map.handle)
        local lenders = map.lenders
        for i = 1, #lenders do
            C.odm_refresh(lenders[i])
        end
    end
    map.calls_left = left
end

return status
