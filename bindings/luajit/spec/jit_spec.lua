-- Hot calls stay compiled: a loop over them becomes a trace that calls the library, without one abort, and stays it.

local support = require("spec.support")

describe("LuaJIT compiles a loop of", function()
    for name in support.output_of("luajit spec/jit_cases.lua"):gmatch("[^\n]+") do
        it(name, function()
            assert.are.equal("", support.output_of(("luajit spec/jit_cases.lua '%s' 2>&1"):format(name)))
        end)
    end
end)
