-- The text in arg[1] goes through ffi.cdef; the library arg[2] answers the functions declared there.

local ffi = require("ffi")

local file = assert(io.open(arg[1]))
local text = file:read("*a")
file:close()
ffi.cdef(text)

local library = ffi.load(arg[2])

local function_count = 0
for name in text:gmatch("(odm_[%w_]+)%s*%(") do
    assert(library[name] ~= nil, name) -- An undeclared name or an absent symbol is an error here.
    function_count = function_count + 1
end
assert(function_count > 30, "the pattern no longer finds the prototypes")

assert(ffi.sizeof("odm_options") == 56)
assert(ffi.sizeof("odm_error") == 256)
assert(ffi.sizeof("odm_statistics") == 200)
assert(library.ODM_OK == 0 and library.ODM_E_CORRUPT == -5 and library.ODM_SALVAGE == 32)

assert(library.odm_version() == 10000, "odm_version")
assert(ffi.string(library.odm_status_name(library.ODM_E_CORRUPT)) == "ODM_E_CORRUPT")
local options = ffi.new("odm_options")
assert(library.odm_options_init(options, ffi.sizeof(options)) == library.ODM_OK)
assert(options.struct_size == ffi.sizeof(options))
