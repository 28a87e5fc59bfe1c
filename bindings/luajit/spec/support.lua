--- support.lua - what the specs share: directories for maps, child processes, and a look at what the trace compiler did.

local ffi = require("ffi")
local diskmap = require("opendiskmap")

ffi.cdef([[
int fork(void);
void _exit(int status);
int waitpid(int pid, int *status, int options);
int kill(int pid, int signal);
int usleep(unsigned microseconds);
int setuid(unsigned uid);
int setgid(unsigned gid);
int chmod(const char *path, unsigned mode);
int chown(const char *path, unsigned uid, unsigned gid);
unsigned umask(unsigned mask);
char *mkdtemp(char *template);
]])

local support = {}

--- The message of nil, message, code, or of what pcall answers.
function support.message(_, message)
    return message
end

-- ---- directories ------------------------------------------------------------------------------------------------------

local function output_of(command)
    local pipe = assert(io.popen(command))
    local output = pipe:read("*a")
    pipe:close()
    return (output:gsub("%s+$", ""))
end
support.output_of = output_of

-- A map is not made on the writable layer of a container unless one insists. /dev/shm is none.
local parent = os.getenv("TMPDIR") or "/tmp"
if output_of("stat -f -c %T " .. parent):find("overlay") then
    parent = "/dev/shm"
end

local directories = {}

--- A new, empty directory, which is removed when the spec ends.
function support.directory()
    local path = ffi.new("char[?]", #parent + 20, parent .. "/odm_lua.XXXXXX")
    assert(ffi.C.mkdtemp(path) ~= nil, "mkdtemp")
    directories[#directories + 1] = ffi.string(path)
    return ffi.string(path)
end

function support.remove_directories()
    for _, path in ipairs(directories) do
        os.execute("rm -rf '" .. path .. "'")
    end
    directories = {}
end

--- An open map in a new directory.
function support.map(key, value, options)
    local all = { key = key, value = value }
    for name, option in pairs(options or {}) do
        all[name] = option
    end
    local path = support.directory() .. "/map"
    return assert(diskmap.open(path, all)), path
end

--- Overwrites the first bytes of `text` where it lies in the log of a map.
function support.damage(path, text)
    local name = output_of(("grep -l '%s' %s/log/* | head -n 1"):format(text, path))
    local file = assert(io.open(name, "r+b"))
    local at = file:read("*a"):find(text, 1, true)
    file:seek("set", at - 1)
    file:write("XXXXX")
    file:close()
end

-- ---- processes --------------------------------------------------------------------------------------------------------

--- Runs fn in a child made by fork. Returns a function that waits for it and tells whether fn answered true.
function support.in_child(fn, ...)
    io.stdout:flush()
    local pid = ffi.C.fork()
    assert(pid >= 0, "fork")
    if pid == 0 then
        local returned, answer = pcall(fn, ...)
        if not returned then
            io.stderr:write("in the child: ", tostring(answer), "\n")
            io.stderr:flush()
        end
        ffi.C._exit(returned and answer and 0 or 1) -- No finalizer, no busted: they are the parent's.
    end
    return function()
        local status = ffi.new("int[1]")
        assert(ffi.C.waitpid(pid, status, 0) == pid, "waitpid")
        return status[0] == 0
    end, pid
end

--- Waits until condition() holds; false if it does not for long.
function support.eventually(condition)
    for _ = 1, 100000 do
        if condition() then
            return true
        end
        ffi.C.usleep(100)
    end
    return false
end

support.C = ffi.C

return support
