-- Finding the native library: in the order that library.lua tells, and with every place named when there is none.

local support = require("spec.support")

-- Where the library lies that the specs run with.
local built = assert(os.getenv("LUA_CPATH"):match("^([^;]+)/%?%.so"), "LUA_CPATH begins with the build's folder")

--- What a new LuaJIT prints, with `cpath` and the linker's `path`.
local function run(cpath, library_path, code)
    return support.output_of(("LUA_CPATH='%s' LD_LIBRARY_PATH='%s' luajit -e '%s' 2>&1"):format(cpath, library_path, code))
end

local ANSWER = [[print(require("opendiskmap").version)]]

describe("the native library", function()
    local directory
    before_each(function()
        directory = support.directory()
    end)
    after_each(support.remove_directories)

    it("is found as opendiskmap.native on package.cpath", function()
        os.execute(("mkdir %s/opendiskmap"):format(directory))
        os.execute(("cp %s/libopendiskmap.so %s/opendiskmap/native.so"):format(built, directory))
        assert.matches("^%d+%.%d+%.%d+$", run(directory .. "/?.so", "", ANSWER))
    end)

    it("is found as libopendiskmap.so in a folder of package.cpath", function()
        os.execute(("cp %s/libopendiskmap.so %s"):format(built, directory))
        assert.matches("^%d+%.%d+%.%d+$", run("/nowhere/?.so;" .. directory .. "/?.so", "", ANSWER))
    end)

    it("is found where the linker looks, with and without a version in its name", function()
        os.execute(("cp %s/libopendiskmap.so %s"):format(built, directory))
        assert.matches("^%d+%.%d+%.%d+$", run("/nowhere/?.so", directory, ANSWER))
        os.execute(("mv %s/libopendiskmap.so %s/libopendiskmap.so.1"):format(directory, directory))
        assert.matches("^%d+%.%d+%.%d+$", run("/nowhere/?.so", directory, ANSWER))
    end)

    it("that can not be loaded does not hide the next one", function()
        os.execute(("mkdir %s/opendiskmap && echo text > %s/opendiskmap/native.so"):format(directory, directory))
        assert.matches("^%d+%.%d+%.%d+$", run(directory .. "/?.so;" .. built .. "/?.so", "", ANSWER))
    end)

    it("that is nowhere is an error with every path that was tried, and why", function()
        os.execute(("mkdir %s/opendiskmap && echo text > %s/opendiskmap/native.so"):format(directory, directory))
        local output = run(directory .. "/?.so;/nowhere/?.so", "", ANSWER)
        for _, part in ipairs({
            "the native library of opendiskmap was not found. Tried:",
            directory .. "/opendiskmap/native.so: .*file too short",
            "/nowhere/opendiskmap/native.so: no such file",
            directory .. "/libopendiskmap.so: no such file",
            "/nowhere/libopendiskmap.so: no such file",
            "opendiskmap: libopendiskmap.so: cannot open shared object file",
            "libopendiskmap.so.1: cannot open shared object file",
        }) do
            assert.matches(part:gsub("%-", "%%-"), output)
        end
    end)

    it("that is something else, or too old, is refused by its version", function()
        local other = support.output_of("ldconfig -p | sed -n 's/.*libxxhash.so.0 .*=> //p;s/.*libz.so.1 .*=> //p' | head -n 1")
        if other ~= "" then
            os.execute(("cp %s %s/libopendiskmap.so"):format(other, directory))
            assert.matches("libopendiskmap.so: .*undefined symbol: odm_version", run(directory .. "/?.so", "", ANSWER))
        end
        local needs_more = [[
            local cdef = require("opendiskmap.cdef")
            cdef.minor = cdef.minor + 1
            require("opendiskmap")]]
        local output = run(built .. "/?.so", "", needs_more)
        assert.matches("its version is 1%.%d+, and this binding needs 1%.%d+ or a later 1%.x", output)
    end)

    it("that lacks a function of the header is refused by that function's name", function()
        local asks_for_more = [[
            local cdef = require("opendiskmap.cdef")
            cdef.text = cdef.text .. " int odm_absent(void);"
            require("opendiskmap")]]
        assert.matches("libopendiskmap.so: .*undefined symbol: odm_absent", run(built .. "/?.so", "", asks_for_more))
    end)

    it("is not asked for by Lua without FFI, which is told", function()
        local output = support.output_of("lua5.1 -e 'require(\"opendiskmap.library\")' 2>&1 || true")
        if output:find("not found", 1, true) then
            return pending("lua5.1 is not installed")
        end
        assert.matches("opendiskmap needs LuaJIT: this is Lua 5.1", output)
    end)

    it("may be declared by two copies of the binding in one Lua state", function()
        assert.are.equal("true", run(built .. "/?.so", "", [[
            local one = require("opendiskmap")
            for name in pairs(package.loaded) do
                if name:find("^opendiskmap") then package.loaded[name] = nil end
            end
            local two = require("opendiskmap")
            local map = assert(two.open(nil))
            print(one ~= two and map:put("a", "b"))]]))
    end)
end)
