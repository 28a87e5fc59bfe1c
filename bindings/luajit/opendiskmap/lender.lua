--- lender.lua - handles beside a map's own, for what must outlast the refreshes of that one: views, and long work in steps.
--
-- map.lenders are those that are not in use. One that is lost, with a coroutine that never goes on, is closed by the garbage
-- collector.

local ffi = require("ffi")
local C = require("opendiskmap.library")

local handle_out = ffi.new("odm_map *[1]")

return {
    --- A handle on the map; or nil and a code, of which the map's handle has the detail.
    take = function(map)
        local lenders = map.lenders
        local handle = lenders[#lenders]
        if handle then
            lenders[#lenders] = nil
            return handle
        end
        local code = C.odm_dup(map.handle, handle_out, nil)
        if code ~= C.ODM_OK then
            return nil, code
        end
        return ffi.gc(handle_out[0], C.odm_close)
    end,

    --- Ends its use: for the next one, or for good if the map was closed meanwhile.
    give = function(map, handle)
        if map.handle ~= nil then
            C.odm_refresh(handle)
            map.lenders[#map.lenders + 1] = handle
        else
            C.odm_close(ffi.gc(handle, nil))
        end
    end,
}
