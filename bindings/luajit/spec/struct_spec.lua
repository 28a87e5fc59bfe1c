-- Structs: the layout is C's, values are read where they lie, and hostile bytes are an error that names the field.

local ffi = require("ffi")
local diskmap = require("opendiskmap")
local support = require("spec.support")

local message = support.message

ffi.cdef([[
struct spec_person {
    uint32_t id;
    odm_slice name;
    uint8_t alive;
    odm_slice scores;
    int64_t balance;
};
]])

local person = diskmap.struct("id:u32,name:str,alive:bool,scores:[f64],balance:i64")
local somebody = { id = 7, name = "Ada", alive = true, scores = { 1, 2.5 }, balance = -3LL }

--- A map of persons, and the same map of plain strings.
local function two_views()
    local map, path = support.map("str", person)
    return map, function(bytes)
        local raw = assert(diskmap.open(path))
        assert(raw:put("x", bytes))
        raw:close()
    end, function()
        local raw = assert(diskmap.open(path))
        local bytes = raw:get("x")
        raw:close()
        return bytes
    end
end

describe("a struct", function()
    after_each(support.remove_directories)

    it("lies in the map as C would lay it out", function()
        local map, _, read = two_views()
        assert(map:put("x", somebody))
        local bytes = read()
        local fixed = ffi.sizeof("struct spec_person")
        local c = ffi.new("struct spec_person")
        ffi.copy(c, bytes, fixed)
        assert.are.equal(7, c.id)
        assert.are.equal(1, c.alive)
        assert.is_true(c.balance == -3)
        assert.are.equal(fixed, c.name.offset)
        assert.are.equal("Ada", bytes:sub(c.name.offset + 1, c.name.offset + c.name.count))
        assert.are.equal(fixed + 8, c.scores.offset)
        assert.are.equal(2, c.scores.count)
        assert.are.equal(fixed + 8 + 16, #bytes)
        -- Padding is zero: equal values have equal bytes.
        c.id, c.alive, c.balance, c.name, c.scores = 0, 0, 0, ffi.new("odm_slice"), ffi.new("odm_slice")
        assert.are.equal(("\0"):rep(fixed), ffi.string(c, fixed))
        assert.are.equal(("\0"):rep(5), bytes:sub(fixed + 4, fixed + 8))
        map:close()
    end)

    it("is spelt in the schema as everywhere", function()
        local map = support.map("u64", diskmap.struct("struct{id:u32,name:str,scores:[f64],n:u53}"))
        assert.are.equal("u64/struct{id:u32,name:str,scores:[f64],n:u64}", map:schema())
        map:close()
    end)

    it("is read field by field", function()
        local map = support.map("str", person)
        map:put("x", somebody)
        local got = map:get("x")
        assert.are.equal(7, got.id)
        assert.are.equal("Ada", got.name)
        assert.is_true(got.alive)
        assert.is_true(got.balance == -3)
        assert.are.equal(2, got.scores.count)
        assert.are.equal(2.5, got.scores[2])
        assert.is_nil(got.scores[0])
        assert.is_nil(got.scores[3])
        assert.is_nil(got.scores[1.5])
        assert.are.equal(2.5, got.scores.pointer[1])
        local sum = 0
        for _, score in got.scores:ipairs() do
            sum = sum + score
        end
        assert.are.equal(3.5, sum)
        map:close()
        local plain = got:to_table() -- The copy outlives the map.
        assert.are.same({ 1, 2.5 }, plain.scores)
        assert.are.equal("Ada", plain.name)
        assert.matches("there is no field 'nam' in struct{id:u32", message(pcall(function()
            return got.nam
        end)))
        assert.matches("can only be read", message(pcall(function()
            got.id = 3
        end)))
    end)

    it("may have fields of any name", function()
        local map = support.map("str", diskmap.struct("size:u8,to_table:u8,owner:str"))
        map:put("x", { size = 1, to_table = 2, owner = "me" })
        local got = map:get("x")
        assert.are.equal(1, got.size)
        assert.are.equal(2, got.to_table)
        assert.are.equal("me", got.owner)
        map:close()
    end)

    it("got from one map can be put into another", function()
        local from, to = support.map("str", person), support.map("str", person)
        local same = support.map("str", diskmap.struct(person.name))
        local other = support.map("str", diskmap.struct("name:str,scores:[f32]"))
        from:put("x", somebody)
        local got = from:get("x")
        assert(to:put("y", got))
        assert(same:put("y", got))
        assert.are.same(got:to_table(), same:get("y"):to_table())
        assert.matches("a table, or a view of the same struct", message(pcall(other.put, other, "y", got)))
        assert(other:put("y", { name = got.name, scores = got.scores }))
        assert.are.same(got:to_table(), to:get("y"):to_table())
        assert.are.same({ 1, 2.5 }, other:get("y").scores:to_table())
        assert(to:view("y", function(view)
            return from:put("z", view)
        end))
        assert.are.equal("Ada", from:get("z").name)
        from:close()
        to:close()
        same:close()
        other:close()
    end)

    it("may be a key", function()
        local map = support.map(diskmap.struct("a:u8,b:u32,c:str"), "u32")
        map:put({ a = 1, b = 2, c = "3" }, 4)
        assert.are.equal(4, map:get({ a = 1, b = 2, c = "3" }))
        assert.is_nil(map:get({ a = 1, b = 2, c = "4" }))
        for key in map:keys() do
            assert.are.same({ a = 1, b = 2, c = "3" }, key:to_table())
        end
        map:close()
    end)

    it("with empty and with large payloads comes back", function()
        local map = support.map("str", person)
        local name, scores = ("n"):rep(100000), {}
        for i = 1, 10000 do
            scores[i] = i / 2
        end
        map:put("large", { id = 1, name = name, alive = false, scores = scores, balance = 0 })
        map:put("empty", { id = 1, name = "", alive = false, scores = {}, balance = 0 })
        assert.are.equal(name, map:get("large").name)
        assert.are.same(scores, map:get("large").scores:to_table())
        assert.are.equal("", map:get("empty").name)
        assert.are.equal(0, map:get("empty").scores.count)
        map:close()
    end)

    it("that lacks a field, or has one of a wrong type, is refused by the field's name", function()
        local map = support.map("str", person)
        local function refused(change)
            local value = {}
            for name, field in pairs(somebody) do
                value[name] = field
            end
            change(value)
            return message(pcall(map.put, map, "x", value))
        end
        assert.matches("an integer from 0 to 4294967295 for field 'id'", refused(function(value)
            value.id = nil
        end))
        assert.matches("a string for field 'name'", refused(function(value)
            value.name = 1
        end))
        assert.matches("a number for element 2 of field 'scores'", refused(function(value)
            value.scores = { 1, "2" }
        end))
        assert.matches("a table for field 'scores'", refused(function(value)
            value.scores = 1
        end))
        assert.matches("no field 'naem'", refused(function(value)
            value.naem = "Ada"
        end))
        assert.matches("a table expected, got 5", message(pcall(map.put, map, "x", 5)))
        assert.is_false(map:has("x"))
        map:close()
    end)

    it("of hostile bytes is an error that names the field", function()
        local map, write, read = two_views()
        map:put("x", somebody)
        local good = read()
        local c = ffi.new("struct spec_person")
        local function hostile(field, change)
            ffi.copy(c, good, ffi.sizeof(c))
            change()
            write(ffi.string(c, ffi.sizeof(c)) .. good:sub(ffi.sizeof(c) + 1))
            local function use(view)
                return view[field]
            end
            local got = map:get("x")
            assert.are.equal(7, got.id)
            local copied, problem = pcall(use, got)
            local viewed, same_problem = pcall(map.view, map, "x", use)
            assert.is_false(copied or viewed)
            assert.are.equal(problem, same_problem)
            assert.is_false((pcall(got.to_table, got)))
            return problem
        end
        assert.matches("field 'name' points outside the value", hostile("name", function()
            c.name.offset = 0xffffffff
        end))
        assert.matches("field 'name' points outside the value", hostile("name", function()
            c.name.count = 0xffffffff
        end))
        assert.matches("field 'scores' points outside the value", hostile("scores", function()
            c.scores.count = 0x20000001 -- times 8 is 8 modulo 2^32
        end))
        assert.matches("field 'scores' is not aligned", hostile("scores", function()
            c.scores.offset, c.scores.count = c.scores.offset + 1, 1
        end))
        assert.matches("field 'alive': a bool is 0 or 1", hostile("alive", function()
            c.alive = 7
        end))
        for _, size in ipairs({ 0, ffi.sizeof(c) - 1 }) do
            write(good:sub(1, size))
            local value, problem, code = map:get("x")
            assert.is_nil(value)
            assert.matches("the value is no struct{id:.*: " .. size .. " bytes are too few", problem)
            assert.are.equal(diskmap.E_MISMATCH, code)
            assert.is_nil((map:view("x", error)))
        end
        map:close()
    end)

    it("that is not spelt right is refused", function()
        local function bad(text)
            return message(pcall(diskmap.struct, text))
        end
        assert.matches("'id: u32' is no field", bad("id: u32"))
        assert.matches("there are two fields 'a'", bad("a:u8,a:u8"))
        assert.matches("field 'a': there is no type 'u128'", bad("a:u128"))
        assert.matches("field 'a': there is no type '%[str%]'", bad("a:[str]"))
        assert.matches("'' is no field", bad(""))
    end)

    it("does not lose what is in a list beside its elements", function()
        local map = support.map("str", diskmap.struct("list:[u8]"))
        for _, list in ipairs({ { x = 1 }, { 1, 2, x = 3 }, { 1, nil, 3 }, { [0] = 1 }, { [2] = 1 }, { [1.5] = 1 } }) do
            local problem = message(pcall(map.put, map, "x", { list = list }))
            assert.matches("struct_spec", message(pcall(function()
                map:put("x", { list = list })
            end)))
            assert.is_true(problem:find("a list without holes or names for field 'list' expected", 1, true) ~= nil
                or problem:find("for element 2 of field 'list' expected", 1, true) ~= nil, problem)
        end
        assert.is_false(map:has("x"))
        assert(map:put("x", { list = {} }))
        assert(map:put("x", { list = { 1, 2 } }))
        -- What looks like an array of a view is none.
        assert.is_false((pcall(map.put, map, "x", { list = { pointer = 1, count = 0 } })))
        map:close()
    end)

    it("refuses an array of a view that has ended, at the line that puts it", function()
        local map = support.map("str", diskmap.struct("list:[u8]"))
        map:put("x", { list = { 1, 2 } })
        local list
        map:view("x", function(view)
            list = view.list
            assert(map:put("y", { list = list }))
        end)
        assert.are.same({ 1, 2 }, map:get("y").list:to_table())
        assert.matches("struct_spec.lua:%d+: .*%(a view that has not ended for field 'list' expected", message(pcall(function()
            map:put("y", { list = list })
        end)))
        map:close()
    end)
end)
