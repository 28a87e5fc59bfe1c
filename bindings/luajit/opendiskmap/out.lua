--- out.lua - out-parameters for a slice, made once by each module that calls the library.
--
-- The size is read as a uint32_t: no slice has 4 GiB, and LuaJIT makes a number of 32 bits in fewer steps than of 64.

local ffi = require("ffi")

--- pointer_out and size_out for a call, and size_of, in which the size is at 0 after it.
return function()
    local size_out = ffi.new("size_t[1]")
    return ffi.new("const void *[1]"), size_out, ffi.cast("const uint32_t *", size_out)
end
