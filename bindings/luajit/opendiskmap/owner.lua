--- owner.lua - gives the directory of a map that is just being made to a user, so that a master that is root can make a map for
-- its workers.
--
-- The library gives every file that root makes in a map to the owner of the directory, whom it looks up when it opens it: so the
-- directory must be given away before. What is there already, other than an empty directory, is not touched, and if no map
-- comes to be all is as before.

local ffi = require("ffi")
local C = require("opendiskmap.library")

-- What the program has declared under these names, as OpenResty has, may be of other types: hence names of our own.
if not pcall(ffi.typeof, "odm_lua_passwd") then
    ffi.cdef([[
typedef struct odm_lua_passwd {
    char *name, *password;
    uint32_t uid, gid;
} odm_lua_passwd; // the first fields of Linux's struct passwd
typedef struct odm_lua_dirent {
    uint64_t inode, offset;
    uint16_t size;
    uint8_t type;
    char name[256];
} odm_lua_dirent;
typedef struct odm_lua_owners {
    uint32_t mask, block_size;
    uint64_t attributes;
    uint32_t links, uid, gid;
    uint32_t rest[57];
} odm_lua_owners; // as much of struct statx as we look at, and its size
odm_lua_passwd *odm_lua_getpwnam(const char *name) __asm__("getpwnam");
uint32_t odm_lua_geteuid(void) __asm__("geteuid");
int odm_lua_mkdir(const char *path, uint32_t mode) __asm__("mkdir");
int odm_lua_rmdir(const char *path) __asm__("rmdir");
int odm_lua_open(const char *path, int flags, ...) __asm__("open");
int odm_lua_dup(int fd) __asm__("dup");
int odm_lua_close(int fd) __asm__("close");
void *odm_lua_fdopendir(int fd) __asm__("fdopendir");
odm_lua_dirent *odm_lua_readdir(void *directory) __asm__("readdir");
void odm_lua_rewinddir(void *directory) __asm__("rewinddir");
int odm_lua_closedir(void *directory) __asm__("closedir");
int odm_lua_statx(int fd, const char *path, int flags, unsigned mask, odm_lua_owners *found) __asm__("statx");
int odm_lua_fchown(int fd, uint32_t uid, uint32_t gid) __asm__("fchown");
char *odm_lua_strerror(int code) __asm__("strerror");
]])
end

local libc = ffi.C
-- O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC. No link is followed: somebody may have put it there meanwhile.
local DIRECTORY_ITSELF = ffi.arch:find("^arm") and 0x4000 + 0x8000 + 0x80000 or 0x10000 + 0x20000 + 0x80000
local AT_EMPTY_PATH, STATX_UID_GID = 0x1000, 0x18

local function failure(what, path)
    local code = ffi.errno()
    return nil, ("%s %s: %s"):format(what, path, ffi.string(libc.odm_lua_strerror(code))), C.ODM_E_IO
end

--- Whether there is nothing in a directory; false also if that can not be told.
local function is_empty(fd)
    local copy = libc.odm_lua_dup(fd) -- closedir closes it.
    local directory = copy >= 0 and libc.odm_lua_fdopendir(copy) or nil
    if directory == nil then
        if copy >= 0 then
            libc.odm_lua_close(copy)
        end
        return false
    end
    libc.odm_lua_rewinddir(directory) -- The place where one is read is the copy's and the original's.
    local entries = 0
    while entries < 3 and libc.odm_lua_readdir(directory) ~= nil do
        entries = entries + 1
    end
    libc.odm_lua_closedir(directory)
    return entries == 2 -- "." and ".."
end

local function nothing_to_take_back() end

--- The empty directory behind `fd` is given to `user`. A function that takes it back; or nil, message, code.
local function give_directory(fd, path, user)
    local entry = libc.odm_lua_getpwnam(user)
    if entry == nil then
        return nil, ("there is no user '%s'"):format(user), C.ODM_E_INVALID
    end
    local uid, gid, before = entry.uid, entry.gid, ffi.new("odm_lua_owners")
    if libc.odm_lua_statx(fd, "", AT_EMPTY_PATH, STATX_UID_GID, before) ~= 0 then
        return failure("look at directory", path)
    elseif libc.odm_lua_fchown(fd, uid, gid) ~= 0 then
        return failure("give away directory", path)
    end
    return function()
        libc.odm_lua_fchown(fd, before.uid, before.gid)
    end
end

return {
    --- To be called before a map is opened at `path`, which may make it. If that is absent, or an empty directory, it is made,
    -- and given to `user`. Only root can: for others nothing is done, and what they make is theirs. A function, to be called
    -- after the opening with whether it succeeded; or nil, message, code.
    give = function(path, user)
        if libc.odm_lua_geteuid() ~= 0 then
            return nothing_to_take_back
        end
        local made = libc.odm_lua_mkdir(path, 493) == 0 -- 0755
        local fd = libc.odm_lua_open(path, DIRECTORY_ITSELF)
        if fd < 0 then
            return nothing_to_take_back -- What is wrong with the path the opening tells.
        elseif not is_empty(fd) then
            libc.odm_lua_close(fd)
            return nothing_to_take_back
        end
        local take_back, message, code = give_directory(fd, path, user)
        local function finish(succeeded)
            -- What is left of a map that could not be made is the user's, too: the next opening takes it up.
            if not succeeded and take_back and is_empty(fd) then
                take_back()
            end
            libc.odm_lua_close(fd)
            if not succeeded and made then
                libc.odm_lua_rmdir(path) -- Only if nothing came into it.
            end
        end
        if not take_back then
            finish(false)
            return nil, message, code
        end
        return finish
    end,
}
