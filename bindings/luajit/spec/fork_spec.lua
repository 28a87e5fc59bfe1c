-- Processes: as nginx has them, a master that is root and workers that are not; and Lua's own ways to be several.

local ffi = require("ffi")
local diskmap = require("opendiskmap")
local support = require("spec.support")

local NOBODY = tonumber(support.output_of("id -u nobody")) or 65534
local NOBODY_GROUP = tonumber(support.output_of("id -g nobody")) or 65534
local is_root = support.output_of("id -u") == "0"

--- Runs fn in a child that has given up root.
local function as_nobody(fn, ...)
    return support.in_child(function(...)
        assert(ffi.C.setgid(NOBODY_GROUP) == 0 and ffi.C.setuid(NOBODY) == 0, "setuid")
        return fn(...)
    end, ...)
end

local ENCODINGS = { key = "str", value = "u64" }

local function options(more)
    local all = { key = ENCODINGS.key, value = ENCODINGS.value }
    for name, option in pairs(more or {}) do
        all[name] = option
    end
    return all
end

describe("a forked map", function()
    after_each(support.remove_directories)

    it("is used on by parent and children", function()
        local map = support.map("str", "u64")
        map:put("count", 0)
        local children = {}
        for i = 1, 4 do
            children[i] = support.in_child(function()
                for _ = 1, 2000 do
                    assert(map:increment("count"))
                end
                return map:put("child " .. i, i) and map:close()
            end)
        end
        for _ = 1, 2000 do
            assert(map:increment("count"))
        end
        for i = 1, 4 do
            assert.is_true(children[i]())
            assert.is_true(map:get("child " .. i) == i + 0ULL)
        end
        assert.is_true(map:get("count") == 10000ULL)
        map:close()
    end)

    it("in memory stays with the parent, and says so in the child", function()
        local map = assert(diskmap.open(nil, ENCODINGS))
        map:put("a", 1)
        assert.is_true(support.in_child(function()
            local value, message, code = map:get("a")
            return value == nil and code == diskmap.E_UNSUPPORTED and message:find("fork", 1, true) ~= nil
        end)())
        assert.is_true(map:get("a") == 1ULL)
        map:close()
    end)

    it("may be forked in a walk and in a view", function()
        local map = support.map("str", "u64")
        for i = 1, 500 do
            map:put("key " .. i, i)
        end
        local met = 0
        for _, value in map:pairs() do
            met = met + 1
            if met == 100 then
                assert.is_true(support.in_child(function()
                    local sum = 0
                    for _, child_value in map:pairs() do
                        sum = sum + tonumber(child_value)
                    end
                    return sum == 500 * 501 / 2 and map:put("from the child", 7)
                end)())
            end
            assert(value)
        end
        assert.is_true(met == 500 or met == 501)
        assert.is_true(map:view("from the child", function(number)
            return support.in_child(function()
                return number[0] == 7ULL and map:put("from the view", 8)
            end)()
        end))
        assert.is_true(map:get("from the view") == 8ULL)
        map:close()
    end)

    it("lets nobody wait for a child that was killed", function()
        local map = support.map("str", "u64")
        local wait, pid = support.in_child(function()
            while true do
                map:increment("count")
            end
        end)
        assert.is_true(support.eventually(function()
            return (map:get("count") or 0ULL) > 1000ULL
        end))
        ffi.C.kill(pid, 9)
        wait()
        local before = map:get("count")
        assert.is_true(map:increment("count") == before + 1)
        map:close()
    end)
end)

-- What OpenResty does: the master opens in init_by_lua, forks, and the workers give up root.
describe("a root master's map", function()
    local path
    before_each(function()
        local directory = support.directory()
        ffi.C.chmod(directory, tonumber("755", 8))
        path = directory .. "/map"
    end)
    after_each(support.remove_directories)

    local function as_root(name, fn)
        it(name, function()
            if not is_root then
                return pending("needs root")
            end
            fn()
        end)
    end

    as_root("with an owner belongs to the workers, who use the handle they inherit", function()
        local map = assert(diskmap.open(path, options({ owner = "nobody" })))
        assert(map:put("from the master", 1))
        for _, file in ipairs({ "", "/meta", "/index", "/lock", "/log" }) do
            assert.are.equal(tostring(NOBODY), support.output_of("stat -c %u " .. path .. file))
        end
        local workers = {}
        for i = 1, 3 do
            workers[i] = as_nobody(function()
                assert(map:get("from the master") == 1ULL)
                for n = 1, 5000 do -- Enough to need new files.
                    assert(map:put(("worker %d, %d"):format(i, n), n))
                end
                return map:increment("count") and map:sync()
            end)
        end
        for i = 1, 3 do
            assert.is_true(workers[i]())
        end
        assert.is_true(map:get("count") == 3ULL)
        assert.are.equal(15002, map:count())
        -- And the master once more, after the workers have made files; and a worker in files that the master has made.
        for n = 1, 20000 do
            assert(map:put("master " .. n, n))
        end
        assert.is_true(as_nobody(function()
            for n = 1, 20000 do
                assert(map:remove("master " .. n))
            end
            return map:compact() and map:sync()
        end)())
        assert(map:put("from the master", 2))
        assert.are.equal("", support.output_of("find " .. path .. " ! -user nobody"))
        assert.are.equal(15002, map:count())
        map:close()
    end)

    as_root("with an owner is opened anew by the workers", function()
        assert(diskmap.open(path, options({ owner = "nobody" }))):close()
        assert.is_true(as_nobody(function()
            local map = assert(diskmap.open(path, options({ owner = "nobody" })))
            return map:put("a", 1) and map:sync() and map:close()
        end)())
        local map = assert(diskmap.open(path, options({ owner = "nobody" })))
        assert.is_true(map:get("a") == 1ULL)
        map:close()
    end)

    as_root("with an owner and mode 600 is for the workers alone", function()
        local map = assert(diskmap.open(path, options({ owner = "nobody", file_mode = tonumber("600", 8) })))
        assert.is_true(as_nobody(function()
            return map:put("a", 1)
        end)())
        map:close()
        assert.are.equal("600", support.output_of("stat -c %a " .. path .. "/meta"))
    end)

    as_root("without an owner can be read by the workers, and a put says what is wrong", function()
        local map = assert(diskmap.open(path, options()))
        assert(map:put("a", 1))
        assert.is_true(as_nobody(function()
            local value, message, code = map:put("b", 2)
            assert(value == nil and code == diskmap.E_IO, message)
            assert(message:lower():find("permission", 1, true), message)
            local reader = assert(diskmap.open(path, options({ read_only = true })))
            return reader:get("a") == 1ULL and map:get("a") == 1ULL
        end)())
        assert.is_false(map:has("b"))
        map:close()
    end)

    as_root("may be given to a user that exists only", function()
        local map, message, code = diskmap.open(path, options({ owner = "no such user here" }))
        assert.is_nil(map)
        assert.are.equal("there is no user 'no such user here'", message)
        assert.are.equal(diskmap.E_INVALID, code)
        map, message, code = diskmap.open(path .. "/none/map", options({ owner = "nobody" }))
        assert.is_nil(map)
        assert.matches("No such file or directory", message)
        assert.are.equal(diskmap.E_IO, code)
        assert.are.equal("", support.output_of("ls " .. path .. " 2> /dev/null"))
    end)

    local function owner_of(place)
        return support.output_of("stat -c %U " .. place .. " 2> /dev/null")
    end

    as_root("is given away in an empty directory that is there, with all that is made in it", function()
        os.execute("mkdir " .. path)
        local map = assert(diskmap.open(path, options({ owner = "nobody", must_create = true })))
        assert(map:put("a", 1))
        assert.are.equal("", support.output_of("find " .. path .. " ! -user nobody"))
        assert.is_true(as_nobody(function()
            local mine = assert(diskmap.open(path, options()))
            return mine:put("b", 2) and map:put("c", 3) and mine:sync() and mine:close()
        end)())
        map:close()
    end)

    as_root("that exists does not change hands", function()
        assert(diskmap.open(path, options())):close()
        assert.is_nil((diskmap.open(path, options({ owner = "nobody", must_create = true }))))
        assert(diskmap.open(path, options({ owner = "nobody" }))):close()
        assert(diskmap.open(path, options({ owner = "no such user here" }))):close()
        assert.are.equal("", support.output_of("find " .. path .. " ! -user root"))
    end)

    as_root("that could be made at the second attempt only is the workers'", function()
        -- The limit, in units of 512 bytes, is one that `log` can be made with, and `meta` can not.
        local script = [[luajit -e 'print(require("opendiskmap").open("%s", { owner = "nobody" }))']]
        assert.matches("^nil.*too large", support.output_of("ulimit -f 1; " .. script:format(path)))
        assert.is_true(as_nobody(function()
            return support.output_of("touch " .. path .. "/log/x 2>&1; rm " .. path .. "/log/x 2>&1") == ""
        end)())
        local map = assert(diskmap.open(path, options({ owner = "nobody" })))
        assert.are.equal("", support.output_of("find " .. path .. " ! -user nobody"))
        map:close()
    end)

    as_root("that was not made changes nothing", function()
        local foreign, file, empty, link = path .. ".foreign", path .. ".file", path .. ".empty", path .. ".link"
        os.execute(("mkdir %s %s && touch %s/x %s && ln -s %s %s"):format(foreign, empty, foreign, file, empty, link))
        for _, place in ipairs({ foreign, file, path .. "/none" }) do
            assert.is_nil((diskmap.open(place, options({ owner = "nobody" }))))
        end
        for _, more in ipairs({ { read_only = true }, { must_exist = true }, { stripes = 3 } }) do
            more.owner = "nobody"
            for _, place in ipairs({ path, empty }) do
                assert.is_nil((diskmap.open(place, options(more))))
            end
        end
        assert.is_nil((diskmap.open(empty, options({ owner = "no such user here" }))))
        assert(diskmap.open(link, options({ owner = "nobody" }))):close()
        for _, place in ipairs({ foreign, foreign .. "/x", file, empty, link }) do
            assert.are.equal("root", owner_of(place))
        end
        assert.are.equal("", owner_of(path))
    end)

    as_root("goes on when a worker is killed in its writes, and a new one comes", function()
        local map = assert(diskmap.open(path, options({ owner = "nobody" })))
        for _ = 1, 5 do
            local before = map:get("count") or 0ULL
            local wait, pid = as_nobody(function()
                while true do
                    map:increment("count")
                end
            end)
            assert.is_true(support.eventually(function()
                return (map:get("count") or 0ULL) > before + 100
            end))
            ffi.C.kill(pid, 9)
            wait()
        end
        assert.is_true(as_nobody(function()
            return map:increment("count") ~= nil
        end)())
        map:close()
    end)
end)
