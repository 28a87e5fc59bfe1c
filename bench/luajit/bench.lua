--- bench.lua - what the LuaJIT binding costs, beside the C ABI it calls, a plain Lua table, and LMDB through FFI.
--
--   luajit bench/luajit/bench.lua DIRECTORY [ENTRIES [SLICES]]      run.sh sets the paths
--
-- All do the same in one process: the same keys in the same random order; every value is read and summed, and the sums compared.
-- They take turns, a slice of the keys each, done twice, of which the second time counts. A figure is the median over the slices
-- of the processor's time; the ratio is the median of the ratios of slices that came one after the other. So other work on the
-- machine disturbs both sides alike.

local ffi = require("ffi")
local C = require("opendiskmap.library")
local diskmap = require("opendiskmap")

local directory = assert(arg[1], "which directory?")
local entries = tonumber(arg[2] or 1000000)
local slices = tonumber(arg[3] or 101)
local WARM_UP = 10 -- slices that are not counted
local SLICE = math.min(entries, 20000) -- keys
local GOAL = 1.3 -- a get of the binding, in calls of the C ABI

-- ---- time and chance ----------------------------------------------------------------------------------------------------

ffi.cdef([[
typedef struct bench_time { long s, ns; } bench_time;
int clock_gettime(int clock, bench_time *time);
]])
local CLOCK_PROCESS_CPUTIME_ID = 2
local time_out = ffi.new("bench_time")

local function now_ns()
    ffi.C.clock_gettime(CLOCK_PROCESS_CPUTIME_ID, time_out)
    return tonumber(time_out.s) * 1e9 + tonumber(time_out.ns)
end

--- Keys 1..entries, shuffled, by a generator that is the same everywhere.
local function shuffled()
    local keys, state = ffi.new("uint32_t[?]", entries), 1
    for i = 0, entries - 1 do
        keys[i] = i + 1
    end
    for i = entries - 1, 1, -1 do
        state = (state * 16807) % 2147483647
        local j = state % (i + 1)
        keys[i], keys[j] = keys[j], keys[i]
    end
    return keys
end
local keys = shuffled()

--- A copy of a loop, which must have no upvalues: else engines would share traces made for another one's types.
local function own_copy(loop)
    return assert(loadstring(string.dump(loop)))
end

-- ---- engines --------------------------------------------------------------------------------------------------------------

-- Each: name, load(), and over keys[first .. last]: get(first, last) -> sum, put(first, last); walk() -> sum.

local function binding(name, encoding)
    local engine = { name = name }
    local get = own_copy(function(map, list, first, last)
        local sum = 0
        for i = first, last do
            sum = sum + tonumber(map:get(list[i]))
        end
        return sum
    end)
    local put = own_copy(function(map, list, first, last)
        for i = first, last do
            map:put(list[i], list[i])
        end
    end)
    local walk = own_copy(function(map)
        local sum = 0
        for _, value in map:pairs() do
            sum = sum + tonumber(value)
        end
        return sum
    end)
    function engine.load()
        local path = ("%s/%s.map"):format(directory, encoding)
        engine.map = assert(diskmap.open(path, { key = encoding, value = encoding }))
        engine.put(0, entries - 1)
    end
    function engine.get(first, last)
        return get(engine.map, keys, first, last)
    end
    function engine.put(first, last)
        return put(engine.map, keys, first, last)
    end
    function engine.walk()
        return walk(engine.map)
    end
    return engine
end

--- The calls themselves, as C would make them: LuaJIT compiles them to the same instructions.
local function calls(of)
    local engine = { name = "C ABI" }
    local key, pointer = ffi.new("uint64_t[1]"), ffi.typeof("const uint64_t *")
    local key_out, key_size_out = ffi.new("const void *[1]"), ffi.new("size_t[1]")
    local value_out, size_out = ffi.new("const void *[1]"), ffi.new("size_t[1]")
    function engine.load() end
    function engine.get(first, last)
        local map, sum = of.map.handle, 0
        for i = first, last do
            key[0] = keys[i]
            C.odm_get(map, key, 8, value_out, size_out)
            sum = sum + tonumber(ffi.cast(pointer, value_out[0])[0])
        end
        C.odm_refresh(map)
        return sum
    end
    function engine.put(first, last)
        local map = of.map.handle
        for i = first, last do
            key[0] = keys[i]
            C.odm_put(map, key, 8, key, 8)
        end
    end
    function engine.walk()
        local map, sum, iter = of.map.handle, 0, ffi.new("odm_iter *[1]")
        C.odm_iter_open(map, iter)
        while C.odm_iter_next(iter[0], key_out, key_size_out, value_out, size_out) == 0 do
            sum = sum + tonumber(ffi.cast(pointer, value_out[0])[0])
        end
        C.odm_iter_close(iter[0])
        C.odm_refresh(map)
        return sum
    end
    return engine
end

local function lua_table()
    local engine, map = { name = "Lua table" }, {}
    function engine.load()
        engine.put(0, entries - 1)
    end
    function engine.get(first, last)
        local sum = 0
        for i = first, last do
            sum = sum + map[keys[i]]
        end
        return sum
    end
    function engine.put(first, last)
        for i = first, last do
            map[keys[i]] = keys[i]
        end
    end
    function engine.walk()
        local sum = 0
        for _, value in pairs(map) do
            sum = sum + value
        end
        return sum
    end
    return engine
end

local function lmdb()
    ffi.cdef([[
    typedef struct MDB_env MDB_env; typedef struct MDB_txn MDB_txn; typedef struct MDB_cursor MDB_cursor;
    typedef struct MDB_val { size_t size; void *data; } MDB_val;
    int mdb_env_create(MDB_env **env);
    int mdb_env_set_mapsize(MDB_env *env, size_t size);
    int mdb_env_open(MDB_env *env, const char *path, unsigned flags, unsigned mode);
    int mdb_txn_begin(MDB_env *env, MDB_txn *parent, unsigned flags, MDB_txn **txn);
    int mdb_txn_commit(MDB_txn *txn);
    void mdb_txn_abort(MDB_txn *txn);
    int mdb_dbi_open(MDB_txn *txn, const char *name, unsigned flags, unsigned *dbi);
    int mdb_get(MDB_txn *txn, unsigned dbi, MDB_val *key, MDB_val *value);
    int mdb_put(MDB_txn *txn, unsigned dbi, MDB_val *key, MDB_val *value, unsigned flags);
    int mdb_cursor_open(MDB_txn *txn, unsigned dbi, MDB_cursor **cursor);
    int mdb_cursor_get(MDB_cursor *cursor, MDB_val *key, MDB_val *value, int op);
    void mdb_cursor_close(MDB_cursor *cursor);
    ]])
    local WRITEMAP, NOSYNC, RDONLY, CREATE, INTEGERKEY, NEXT = 0x80000, 0x10000, 0x20000, 0x40000, 0x08, 8
    local PUTS_PER_TRANSACTION = 10000
    local loaded, M = pcall(ffi.load, "liblmdb.so.0")
    if not loaded then
        return nil
    end
    local engine = { name = "LMDB" }
    local env, txn, dbi = ffi.new("MDB_env *[1]"), ffi.new("MDB_txn *[1]"), ffi.new("unsigned[1]")
    local key, value, number = ffi.new("MDB_val"), ffi.new("MDB_val"), ffi.new("uint64_t[1]")
    local pointer = ffi.typeof("const uint64_t *")
    local function check(code)
        assert(code == 0, "LMDB failed")
    end
    function engine.load()
        local path = directory .. "/lmdb"
        os.execute("mkdir '" .. path .. "'")
        check(M.mdb_env_create(env))
        check(M.mdb_env_set_mapsize(env[0], 4 * 2 ^ 30))
        check(M.mdb_env_open(env[0], path, WRITEMAP + NOSYNC, 420))
        check(M.mdb_txn_begin(env[0], nil, 0, txn))
        check(M.mdb_dbi_open(txn[0], nil, CREATE + INTEGERKEY, dbi))
        check(M.mdb_txn_commit(txn[0]))
        engine.put(0, entries - 1)
    end
    function engine.get(first, last)
        local sum = 0
        check(M.mdb_txn_begin(env[0], nil, RDONLY, txn))
        key.size, key.data = 8, number
        for i = first, last do
            number[0] = keys[i]
            M.mdb_get(txn[0], dbi[0], key, value)
            sum = sum + tonumber(ffi.cast(pointer, value.data)[0])
        end
        M.mdb_txn_abort(txn[0])
        return sum
    end
    function engine.put(first, last)
        for i = first, last do
            if (i - first) % PUTS_PER_TRANSACTION == 0 then
                if i > first then
                    check(M.mdb_txn_commit(txn[0]))
                end
                check(M.mdb_txn_begin(env[0], nil, 0, txn))
            end
            number[0] = keys[i]
            key.size, key.data, value.size, value.data = 8, number, 8, number
            check(M.mdb_put(txn[0], dbi[0], key, value, 0))
        end
        check(M.mdb_txn_commit(txn[0]))
    end
    function engine.walk()
        local sum, cursor = 0, ffi.new("MDB_cursor *[1]")
        check(M.mdb_txn_begin(env[0], nil, RDONLY, txn))
        check(M.mdb_cursor_open(txn[0], dbi[0], cursor))
        while M.mdb_cursor_get(cursor[0], key, value, NEXT) == 0 do
            sum = sum + tonumber(ffi.cast(pointer, value.data)[0])
        end
        M.mdb_cursor_close(cursor[0])
        M.mdb_txn_abort(txn[0])
        return sum
    end
    return engine
end

-- ---- the run --------------------------------------------------------------------------------------------------------------

local u64 = binding("u64, cdata", "u64")
local engines = { u64, binding("u53, numbers", "u53"), calls(u64), lua_table() }
engines[#engines + 1] = lmdb()

local function median(list)
    table.sort(list)
    return list[math.ceil(#list / 2)]
end

for _, engine in ipairs(engines) do
    engine.load()
end

--- Times of a row: a list of ns per operation for each engine, one a slice. next_slice(i) -> what the loops take, and operations.
local function measured(name, count, next_slice)
    local times = {}
    for i = 1, WARM_UP + count do
        local first, last, operations, expected = next_slice(i)
        for number, engine in ipairs(engines) do
            engine[name](first, last) -- Not timed: what the others have left in the caches is not this one's affair.
            local run, start = engine[name], now_ns()
            local sum = run(first, last)
            local time = (now_ns() - start) / operations
            assert(not expected or sum == expected, engine.name .. ": a wrong answer")
            times[number] = times[number] or {}
            times[number][#times[number] + 1] = i > WARM_UP and time or nil
        end
    end
    return times
end

local function slice(i)
    local first = (i * SLICE) % (entries - SLICE + 1)
    local sum = 0
    for k = first, first + SLICE - 1 do
        sum = sum + keys[k]
    end
    return first, first + SLICE - 1, SLICE, sum
end

local rows = {
    { "get", measured("get", slices, slice) },
    { "put", measured("put", slices, function(i)
        local first, last = slice(i)
        return first, last, SLICE
    end) },
    { "walk", measured("walk", math.max(3, math.floor(slices * SLICE / entries)), function()
        return nil, nil, entries, entries * (entries + 1) / 2
    end) },
}

print(("%s, %d entries, %d slices"):format(jit.version, entries, slices))
local header, line = { "ns each" }, { "---" }
for _, engine in ipairs(engines) do
    header[#header + 1], line[#line + 1] = engine.name, "---:"
end
header[#header + 1], line[#line + 1] = "binding / C ABI", "---:"
print("| " .. table.concat(header, " | ") .. " |\n|" .. table.concat(line, "|") .. "|")
for _, row in ipairs(rows) do
    local name, times = row[1], row[2]
    local ratios = {}
    for i = 1, #times[1] do
        ratios[i] = times[1][i] / times[3][i]
    end
    local cells, ratio = { name }, median(ratios)
    for i = 1, #engines do
        cells[#cells + 1] = ("%.1f"):format(median(times[i]))
    end
    local verdict = name == "get" and (ratio <= GOAL and " (at most 1.3: kept)" or " (at most 1.3: MISSED)") or ""
    print("| " .. table.concat(cells, " | ") .. (" | %.2f%s |"):format(ratio, verdict))
end
