--- jit_cases.lua - loops that must stay compiled. A LuaJIT a case: what another has compiled would be met by its traces.
--
--   luajit spec/jit_cases.lua           prints the names of the cases
--   luajit spec/jit_cases.lua NAME      fails unless that loop is compiled

local bit = require("bit")
local util = require("jit.util")
local vmdef = require("jit.vmdef")
local diskmap = require("opendiskmap")

local ROUNDS, KEYS = 20000, 100

--- Why a trace was given up.
local function reason_of(func, pc, code, argument)
    if type(argument) == "function" then
        argument = util.funcinfo(argument).loc
    end
    local reason = tostring(vmdef.traceerr[code] or code):gsub("%%[ds]", tostring(argument))
    return reason .. " at " .. util.funcinfo(func, pc).loc
end

-- Not aborts of the loop: the compiler began a trace at a function inside the loop, where its counters happened to end first, and
-- begins another one at the loop. The last is where Lua calls a function by itself, as for the field of a view.
local misplaced = {
    "^leaving loop in root trace", "^inner loop in root trace", "^loop unroll limit reached", "^NYI: return to lower frame",
}

local function began_elsewhere(reason)
    for _, pattern in ipairs(misplaced) do
        if reason:find(pattern) then
            return true
        end
    end
end

--- What the trace compiler does while fn runs: { aborts = list of reasons, loops = list of numbers of traces, starts = count }.
local function observed(fn)
    local seen = { aborts = {}, loops = {}, starts = 0 }
    local function observe(what, trace, func, pc, code, argument)
        if what == "start" then
            seen.starts = seen.starts + 1
        elseif what == "abort" then
            local reason = reason_of(func, pc, code, argument)
            if not began_elsewhere(reason) then
                table.insert(seen.aborts, reason)
            end
        elseif what == "stop" and util.traceinfo(trace).linktype == "loop" then
            table.insert(seen.loops, trace)
        end
    end
    jit.attach(observe, "trace")
    local returned, problem = pcall(fn)
    jit.attach(observe)
    assert(returned, problem)
    return seen
end

--- Calls of C functions that a trace was compiled to.
local function foreign_calls(trace)
    local calls = 0
    for i = 1, util.traceinfo(trace).nins do
        local _, operation = util.traceir(trace, i)
        local name = vmdef.irnames:sub(bit.rshift(operation, 8) * 6 + 1, bit.rshift(operation, 8) * 6 + 6)
        if name:match("CALLXS") then
            calls = calls + 1
        end
    end
    return calls
end

--- Fails unless fn(rounds), a loop, is compiled with its calls of the library in it, and nothing is compiled any more after that.
local function assert_compiled(fn)
    local first = observed(function()
        fn(ROUNDS)
    end)
    assert(#first.aborts == 0, "aborts: " .. table.concat(first.aborts, "; "))
    local calls = 0
    for _, trace in ipairs(first.loops) do
        calls = calls + foreign_calls(trace)
    end
    assert(calls > 0, "no compiled loop calls the library")
    -- What is rare, such as a refresh, becomes a trace of its own when it has been seen often enough.
    local later
    for _ = 1, 50 do
        later = observed(function()
            fn(ROUNDS)
        end)
        assert(#later.aborts == 0, "late aborts: " .. table.concat(later.aborts, "; "))
        if later.starts == 0 then
            return
        end
    end
    error(("after a million rounds the compiler still begins %d traces"):format(later.starts))
end

-- ---- cases ------------------------------------------------------------------------------------------------------------

local cases, names = {}, {}

local function case(name, run)
    cases[name] = run
    names[#names + 1] = name
end

--- A map in memory, with `count` entries, and the keys and values in it.
local function filled(kind, count)
    local map = assert(diskmap.open(nil, { key = kind.key, value = kind.value }))
    local keys, values = {}, {}
    for i = 1, count do
        keys[i], values[i] = kind.make_key(i), kind.make_value(i)
        assert(map:put(keys[i], values[i]))
    end
    return map, keys, values
end

local function itself(i)
    return i
end

local point = diskmap.struct("x:f64,name:str,list:[u16]")
local kinds = {
    { key = "u32", value = "u32", make_key = itself, make_value = itself },
    { key = "u53", value = "f64", make_key = itself, make_value = itself },
    { key = "u64", value = "u64", make_key = function(i) return i + 0ULL end, make_value = function(i) return i + 0ULL end },
    { key = "i64", value = "bool", make_key = itself, make_value = function(i) return i % 2 == 0 end },
    { key = "str", value = "str", make_key = function(i) return "key " .. i end, make_value = tostring },
}

for _, kind in ipairs(kinds) do
    local suffix = ", " .. kind.key .. " to " .. kind.value

    case("get" .. suffix, function()
        local map, keys = filled(kind, KEYS)
        return function(rounds)
            local found = 0
            for i = 1, rounds do
                if map:get(keys[i % KEYS + 1]) ~= nil then
                    found = found + 1
                end
            end
            assert(found == rounds)
        end
    end)

    case("has" .. suffix, function()
        local map, keys = filled(kind, KEYS)
        return function(rounds)
            local found = 0
            for i = 1, rounds do
                if map:has(keys[i % KEYS + 1]) then
                    found = found + 1
                end
            end
            assert(found == rounds)
        end
    end)

    case("put" .. suffix, function()
        local map, keys, values = filled(kind, KEYS)
        return function(rounds)
            local put = 0
            for i = 1, rounds do
                if map:put(keys[i % KEYS + 1], values[i % KEYS + 1]) then
                    put = put + 1
                end
            end
            assert(put == rounds)
        end
    end)

    if kind.value ~= "bool" then -- Of a variable that is now true, now false, each is a trace of its own.
        case("pairs" .. suffix, function()
            local map = filled(kind, ROUNDS)
            return function(rounds)
                local met = 0
                for _, value in map:pairs() do
                    if value ~= nil then
                        met = met + 1
                    end
                end
                assert(met == rounds)
            end
        end)
    end
end

case("get of absent keys", function()
    local map = assert(diskmap.open(nil, { key = "u32", value = "u32" }))
    return function(rounds)
        local found = 0
        for i = 1, rounds do
            if map:get(i) then
                found = found + 1
            end
        end
        assert(found == 0)
    end
end)

case("keys", function()
    local map = filled(kinds[1], ROUNDS)
    return function(rounds)
        local sum = 0
        for key in map:keys() do
            sum = sum + key
        end
        assert(sum == rounds * (rounds + 1) / 2)
    end
end)

case("values", function()
    local map = filled(kinds[1], ROUNDS)
    return function(rounds)
        local sum = 0
        for value in map:values() do
            sum = sum + value
        end
        assert(sum == rounds * (rounds + 1) / 2)
    end
end)

case("increment", function()
    local map = assert(diskmap.open(nil, { key = "u32", value = "u64" }))
    return function(rounds)
        for i = 1, rounds do
            map:increment(i % KEYS)
        end
    end
end)

-- A loop is recorded in its round HOTLOOP. In that round the first key is met again, and with it the map's first refresh.
case("increment whose first refresh is recorded", function()
    local HOTLOOP = 56
    jit.opt.start("hotloop=" .. HOTLOOP)
    local map = assert(diskmap.open(nil, { key = "u32", value = "u64" }))
    return function(rounds)
        for i = 1, rounds do
            map:increment(i % HOTLOOP)
        end
    end
end)

for idle = 1, 3 do
    case(("get and put beside %d handles that views have used"):format(idle), function()
        local map, keys, values = filled(kinds[1], KEYS)
        local function within(depth)
            return map:view(1, function()
                return depth == 1 or within(depth - 1)
            end)
        end
        assert(within(idle) and #map.lenders == idle)
        return function(rounds)
            for i = 1, rounds do
                assert(map:get(keys[i % KEYS + 1]) and map:put(keys[i % KEYS + 1], values[i % KEYS + 1]))
            end
        end
    end)
end

local function points()
    return (filled({ key = "u32", value = point, make_key = itself, make_value = function(i)
        return { x = i, name = "name", list = { 1, 2, 3 } }
    end }, KEYS))
end

case("view of a struct", function()
    local map = points()
    local function sum_of(view)
        return view.x + view.list[2] + #view.name
    end
    return function(rounds)
        local sum = 0
        for i = 1, rounds do
            sum = sum + map:view(i % KEYS + 1, sum_of)
        end
        assert(sum > rounds)
    end
end)

case("get of a struct", function()
    local map = points()
    return function(rounds)
        local sum = 0
        for i = 1, rounds do
            local got = map:get(i % KEYS + 1)
            sum = sum + got.x + got.list[3] + #got.name
        end
        assert(sum > rounds)
    end
end)

if not arg[1] then
    print(table.concat(names, "\n"))
else
    jit.off() -- What prepares the loop must not leave traces that the loop runs into.
    local loop = cases[arg[1]]()
    jit.on()
    assert_compiled(loop)
end
