-- From the root of the source tree: luarocks make bindings/luajit/opendiskmap-scm-1.rockspec
-- pack.sh makes of this the rockspec of a release: it replaces the lines that are marked.

rockspec_format = "3.0"
package = "opendiskmap"
version = "scm-1" -- pack.sh
source = { url = "." } -- pack.sh
local lua_folder = "bindings/luajit/" -- pack.sh
local c_files = "-Iinclude core/*.c" -- pack.sh

description = {
    summary = "A persistent hash map: a directory on disk, shared live by processes of many languages",
    detailed = [[
        Keys and values with types, structs read in place, reads without a lock, several writers, safe over kills and
        power loss. For LuaJIT and OpenResty. 64-bit Linux.]],
    license = "MIT",
    labels = { "database", "luajit", "openresty", "ffi" },
}
supported_platforms = { "linux" }
dependencies = { "lua == 5.1" } -- LuaJIT calls itself that. Others are refused by opendiskmap.library.

-- Not the build type "builtin": its shared object would export all that is inside, and could be unloaded while a handler for fork
-- points into it.
build = {
    type = "command",
    build_command = [[mkdir -p build/luarocks && $(CC) $(CFLAGS) -O2 -std=c11 -D_GNU_SOURCE -DNDEBUG -fPIC -shared -pthread ]]
        .. [[-fvisibility=hidden '-DODM_API=__attribute__((visibility("default")))' -Wl,-z,nodelete ]]
        .. c_files .. [[ -o build/luarocks/native.so]],
    install = {
        lua = {
            ["opendiskmap"] = lua_folder .. "opendiskmap.lua",
            ["opendiskmap.cdef"] = lua_folder .. "opendiskmap/cdef.lua",
            ["opendiskmap.encodings"] = lua_folder .. "opendiskmap/encodings.lua",
            ["opendiskmap.entry"] = lua_folder .. "opendiskmap/entry.lua",
            ["opendiskmap.lender"] = lua_folder .. "opendiskmap/lender.lua",
            ["opendiskmap.library"] = lua_folder .. "opendiskmap/library.lua",
            ["opendiskmap.many"] = lua_folder .. "opendiskmap/many.lua",
            ["opendiskmap.map"] = lua_folder .. "opendiskmap/map.lua",
            ["opendiskmap.out"] = lua_folder .. "opendiskmap/out.lua",
            ["opendiskmap.owner"] = lua_folder .. "opendiskmap/owner.lua",
            ["opendiskmap.status"] = lua_folder .. "opendiskmap/status.lua",
            ["opendiskmap.struct"] = lua_folder .. "opendiskmap/struct.lua",
            ["opendiskmap.walk"] = lua_folder .. "opendiskmap/walk.lua",
            ["opendiskmap.work"] = lua_folder .. "opendiskmap/work.lua",
        },
        lib = {
            ["opendiskmap.native"] = "build/luarocks/native.so",
        },
    },
    copy_directories = {},
}
