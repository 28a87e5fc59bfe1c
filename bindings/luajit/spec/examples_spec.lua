-- What the examples say when a get fails: that it failed, not that the key is absent.

local diskmap = require("opendiskmap")
local support = require("spec.support")

--- What an example prints, errors too, whose gets of `key` fail.
local function run(name, arguments, key)
    local breaking = ([[
        local diskmap = require("opendiskmap")
        local open = diskmap.open
        function diskmap.open(...)
            local map = assert(open(...))
            local get = map.get
            function map:get(key)
                if tostring(key) == %q then return nil, "the disk is broken", diskmap.E_IO end
                return get(self, key)
            end
            return map
        end
        arg = { %s }
        dofile("../../examples/luajit/%s.lua")]]):format(key, arguments, name)
    local script = support.directory() .. "/run.lua"
    local file = assert(io.open(script, "w"))
    file:write(breaking)
    file:close()
    return support.output_of("luajit " .. script .. " 2>&1; echo exit $?")
end

describe("an example", function()
    after_each(support.remove_directories)

    it("of first steps tells that a get failed", function()
        local output = run("quickstart", ("%q"):format(support.directory() .. "/map"), "grey")
        assert.matches("the disk is broken", output)
        assert.matches("exit 1$", output)
        assert.is_nil(output:find("NOT_FOUND", 1, true))
    end)

    it("of looking up characters tells that a get failed", function()
        local directory = support.directory()
        local names = assert(diskmap.open(directory .. "/names", { key = "u32", value = "str" }))
        local characters = assert(diskmap.open(directory .. "/characters", { key = "str", value = "u32" }))
        names:put(0x2603, "SNOWMAN")
        characters:put("SNOWMAN", 0x2603)
        names:close()
        characters:close()
        local arguments = ("%q, 'U+2603', 'snowman', 'U+2604'"):format(directory)
        assert.matches("U%+2603  SNOWMAN.*U%+2603  SNOWMAN.*no character: U%+2604", run("unicode", arguments, "none"))
        for _, key in ipairs({ tostring(0x2603), "SNOWMAN" }) do
            local output = run("unicode", arguments, key)
            assert.matches("the disk is broken", output)
            assert.matches("exit 1$", output)
            assert.is_nil(output:find("no character", 1, true))
        end
    end)
end)
