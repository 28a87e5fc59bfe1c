-- Style of the binding: luacheck bindings/luajit
std = "luajit"
max_line_length = 130
exclude_files = { "opendiskmap/cdef.lua" } -- generated
files["spec"] = { std = "+busted" }
