--- owner.lua - makes a map's directory and gives it to a user, so that a master that is root can make a map for its workers.
--
-- The library gives every file that root makes in a map to the owner of the directory.

local ffi = require("ffi")
local C = require("opendiskmap.library")

-- What the program has declared under these names, as OpenResty has, may be of other types: hence names of our own.
if not pcall(ffi.typeof, "odm_lua_passwd") then
    ffi.cdef([[
typedef struct odm_lua_passwd {
    char *name, *password;
    uint32_t uid, gid;
} odm_lua_passwd; // the first fields of Linux's struct passwd
odm_lua_passwd *odm_lua_getpwnam(const char *name) __asm__("getpwnam");
uint32_t odm_lua_geteuid(void) __asm__("geteuid");
int odm_lua_mkdir(const char *path, uint32_t mode) __asm__("mkdir");
int odm_lua_lchown(const char *path, uint32_t uid, uint32_t gid) __asm__("lchown");
char *odm_lua_strerror(int code) __asm__("strerror");
]])
end

local EEXIST = 17

local function failure(what, path)
    local code = ffi.errno()
    return nil, ("%s %s: %s"):format(what, path, ffi.string(ffi.C.odm_lua_strerror(code))), C.ODM_E_IO
end

return {
    --- Makes the directory `path` if there is none, and gives it to `user`. Only root can: for others nothing is done, and what
    -- they make is theirs. true; or nil, message, code.
    give = function(path, user)
        if ffi.C.odm_lua_geteuid() ~= 0 then
            return true
        end
        local entry = ffi.C.odm_lua_getpwnam(user)
        if entry == nil then
            return nil, ("there is no user '%s'"):format(user), C.ODM_E_INVALID
        end
        if ffi.C.odm_lua_mkdir(path, 493) ~= 0 and ffi.errno() ~= EEXIST then -- 0755
            return failure("make directory", path)
        end
        -- lchown: of a link that somebody put there meanwhile, the link itself.
        if ffi.C.odm_lua_lchown(path, entry.uid, entry.gid) ~= 0 then
            return failure("give away directory", path)
        end
        return true
    end,
}
