--- struct.lua - the encoding struct{id:u32,name:str,scores:[f64]}: a table to bytes, and bytes read where they lie.
--
-- The bytes: the fields in order, aligned as in C. A str, bytes or [T] field is an odm_slice {offset, count}, counted from the
-- start of the value. The payloads follow in the order of the fields, each 8-byte aligned. All padding is zero.

local ffi = require("ffi")
local encodings = require("opendiskmap.encodings")
require("opendiskmap.library") -- declares odm_slice

local cast, copy, fill, new, string_at, typeof = ffi.cast, ffi.copy, ffi.fill, ffi.new, ffi.string, ffi.typeof
local next, type, rawget, setmetatable, getmetatable = next, type, rawget, setmetatable, getmetatable

local named, too_large, COPY_MAX = encodings.named, encodings.too_large, encodings.COPY_MAX
local bytes_pointer = typeof("const uint8_t *")
local slice_pointer = typeof("odm_slice *")
local const_slice_pointer = typeof("const odm_slice *")
local aligned_array = typeof("uint64_t[?]")

local function round_up(size, alignment)
    return size + (-size) % alignment
end

-- ---- layout ---------------------------------------------------------------------------------------------------------

--- The place of each field. A field: name, type (as the schema spells it), offset; and either scalar, or element_size,
-- alignment and, if it is an array, element.
local function place(field, kind, at)
    local scalar = named[kind]
    if scalar and scalar.ctype then
        field.scalar, field.type, field.size, field.alignment = scalar, scalar.schema_name, scalar.size, scalar.size
    else
        field.size, field.alignment = 8, 4 -- an odm_slice
        local element = named[kind:match("^%[(.+)%]$") or ""]
        if kind == "str" or kind == "bytes" then
            field.element_size, field.type = 1, kind
        elseif element and element.ctype then
            field.element, field.element_size, field.type = element, element.size, "[" .. element.schema_name .. "]"
        else
            return nil
        end
    end
    if field.scalar then
        field.pointer = typeof(scalar.ctype .. " *")
    end
    field.offset = round_up(at, field.alignment)
    return field.offset + field.size
end

--- Reads "id:u32,name:str": the fields, the size of the part before the payloads, and the name for the schema.
local function parse(text)
    local fields, by_name, spelt, has_payloads = {}, {}, {}, false
    local at, alignment = 0, 1
    for part in (text .. ","):gmatch("([^,]*),") do
        local name, kind = part:match("^([%a_][%w_]*):([%w_%[%]]+)$")
        if not name then
            return nil, ("'%s' is no field: write name:type, without blanks"):format(part)
        end
        if by_name[name] then
            return nil, ("there are two fields '%s'"):format(name)
        end
        local field = { name = name }
        at = place(field, kind, at)
        if not at then
            return nil, ("field '%s': there is no type '%s' for fields"):format(name, kind)
        end
        alignment = math.max(alignment, field.alignment)
        has_payloads = has_payloads or not field.scalar
        fields[#fields + 1], by_name[name] = field, field
        spelt[#spelt + 1] = name .. ":" .. field.type
    end
    return {
        fields = fields,
        by_name = by_name,
        fixed_size = round_up(at, alignment),
        has_payloads = has_payloads,
        schema_name = "struct{" .. table.concat(spelt, ",") .. "}",
    }
end

-- ---- reading in place -----------------------------------------------------------------------------------------------

-- A view is { bytes, size, owner }; what it reads are the fields of the struct, so nothing of its own has a name. owner keeps
-- the bytes alive. At the end of a Map:view its bytes become false.

local function ended()
    error("the view is used after the end of its Map:view", 3)
end

local array_methods = {}

--- The elements as a table.
function array_methods.to_table(array)
    local elements = {}
    for i = 1, array.count do
        elements[i] = array[i]
    end
    return elements
end

--- for i, element in array:ipairs() do
function array_methods.ipairs(array)
    return function(_, i)
        if i < array.count then
            return i + 1, array[i + 1]
        end
    end, nil, 0
end

--- The class of arrays of a field: array[1] is the first; array.count; array.pointer for C's manners, from 0.
-- They end with their view.
local function array_class(field)
    local element = field.element
    local pointer, read = typeof("const " .. element.ctype .. " *"), element.read
    local class = { is_array_of_view = true }
    function class.__index(array, i)
        if type(i) ~= "number" then
            return array_methods[i]
        end
        if not array.view[1] then
            return ended()
        end
        if i >= 1 and i <= array.count and i % 1 == 0 then
            local value, problem = read(array.pointer, i - 1)
            if value == nil then
                error(("field '%s', element %d: %s"):format(field.name, i, problem), 2)
            end
            return value
        end
    end
    function class.__len(array) -- for builds of LuaJIT that ask tables
        return array.count
    end
    return function(view, from, count)
        return setmetatable({ view = view, pointer = cast(pointer, view[1] + from), count = count }, class)
    end
end

local function getter_of(field)
    local offset = field.offset
    if field.scalar then
        local pointer, read = typeof("const " .. field.scalar.ctype .. " *"), field.scalar.read
        return function(view)
            local bytes = view[1]
            if not bytes then
                return ended()
            end
            local value, problem = read(cast(pointer, bytes + offset), 0)
            if value == nil then
                error(("field '%s': %s"):format(field.name, problem), 3)
            end
            return value
        end
    end
    local array, element_size = field.element and array_class(field), field.element_size
    return function(view)
        local bytes, size = view[1], view[2]
        if not bytes then
            return ended()
        end
        local slice = cast(const_slice_pointer, bytes + offset)
        local from, count = slice.offset, slice.count
        -- Anybody may have written these bytes. The product has less than 53 bits: it does not wrap.
        if from > size or count * element_size > size - from then
            error(("field '%s' points outside the value"):format(field.name), 3)
        elseif from % element_size ~= 0 then
            error(("field '%s' is not aligned"):format(field.name), 3)
        elseif array then
            return array(view, from, count)
        elseif count > COPY_MAX then
            error(("field '%s': %s"):format(field.name, too_large(count)), 3)
        end
        return string_at(bytes + from, count)
    end
end

local function view_class(layout)
    local getters, methods, class = {}, {}, { schema_name = layout.schema_name }
    for _, field in ipairs(layout.fields) do
        getters[field.name] = getter_of(field)
    end
    --- A table of plain Lua values. A field of this name comes first.
    function methods.to_table(view)
        local values = {}
        for _, field in ipairs(layout.fields) do
            local value = getters[field.name](view)
            values[field.name] = field.element and value:to_table() or value
        end
        return values
    end
    function class.__index(view, name)
        local getter = getters[name]
        if getter then
            return getter(view)
        end
        local method = methods[name]
        if not method then
            error(("there is no field '%s' in %s"):format(tostring(name), layout.schema_name), 2)
        end
        return method
    end
    function class.__newindex()
        error("a view can only be read: put another value", 2)
    end
    function class.__tostring()
        return layout.schema_name
    end
    return class
end

-- ---- writing --------------------------------------------------------------------------------------------------------

--- Elements of a table, or of an array of a view; or nil and what was expected.
local function length(field, elements)
    local class = getmetatable(elements)
    if type(class) == "table" and class.is_array_of_view then
        if not rawget(elements, "view")[1] then
            return nil, ("a view that has not ended for field '%s'"):format(field.name)
        end
        return rawget(elements, "count")
    end
    local count, entries = #elements, 0
    for _ in next, elements do
        entries = entries + 1
    end
    if entries ~= count then -- What # does not see would be lost without a word.
        return nil, ("a list without holes or names for field '%s'"):format(field.name)
    end
    return count
end

--- Bytes that a payload takes; or nil and what was expected.
local function payload_size(field, value)
    if field.element then
        if type(value) ~= "table" then
            return nil, ("a table for field '%s'"):format(field.name)
        end
        local count, expected = length(field, value)
        return count and count * field.element_size, expected
    end
    if type(value) ~= "string" then
        return nil, ("a string for field '%s'"):format(field.name)
    end
    return #value
end

local function store_array(field, bytes, elements, count)
    local array = cast(field.element.ctype .. " *", bytes)
    for i = 1, count do
        local stored, expected = field.element.accept(elements[i])
        if stored == nil then
            return ("%s for element %d of field '%s'"):format(expected, i, field.name)
        end
        array[i - 1] = stored
    end
end

local function codec(layout, class)
    local fields, fixed_size = layout.fields, layout.fixed_size
    local buffer, buffer_size = new(aligned_array, 32), 256
    local list_sizes = {} -- bytes of the list in field i, of the value that was measured last

    --- Where each payload goes is known only when all before it are: so sizes first.
    local function measure(value)
        local size = fixed_size
        for i = 1, #fields do
            local field = fields[i]
            if field.element_size then
                local payload, expected = payload_size(field, value[field.name])
                if not payload then
                    return nil, expected
                end
                size = round_up(size, 8) + payload
                list_sizes[i] = field.element and payload
            end
        end
        if size > COPY_MAX then
            return nil, ("a struct of at most %d bytes"):format(COPY_MAX)
        end
        return size
    end

    --- A field that the struct has not got would be lost without a word.
    local function surplus(value)
        for name in pairs(value) do
            if not layout.by_name[name] then
                return ("no field '%s'"):format(tostring(name))
            end
        end
    end

    --- Stores field i; `at` is where the payloads have come to. Returns where they come to now; or nil and what was expected.
    local function store(i, bytes, value, at)
        local field = fields[i]
        if field.scalar then
            local stored, expected = field.scalar.accept(value)
            if stored == nil then
                return nil, ("%s for field '%s'"):format(expected, field.name)
            end
            cast(field.pointer, bytes + field.offset)[0] = stored
            return at
        end
        at = round_up(at, 8)
        local size = list_sizes[i] or payload_size(field, value)
        local slice = cast(slice_pointer, bytes + field.offset)
        slice.offset, slice.count = at, size / field.element_size
        if field.element then
            local expected = store_array(field, bytes + at, value, slice.count)
            if expected then
                return nil, expected
            end
        else
            copy(bytes + at, value, size)
        end
        return at + size
    end

    local function encode(value)
        if type(value) ~= "table" then
            return nil, "a table"
        end
        local other = getmetatable(value)
        if type(other) == "table" and other.schema_name then -- A view, of this map or of another one.
            if other.schema_name ~= layout.schema_name then
                return nil, "a table, or a view of the same struct"
            elseif not value[1] then
                return nil, "a view that has not ended"
            end
            return value[1], value[2]
        end
        local size, expected = measure(value)
        expected = expected or surplus(value)
        if expected then
            return nil, expected
        end
        if size > buffer_size then
            buffer_size = math.min(round_up(size, 4096), COPY_MAX)
            buffer = new(aligned_array, buffer_size / 8)
        end
        fill(buffer, size)
        local bytes, at = cast("uint8_t *", buffer), fixed_size
        for i = 1, #fields do
            at, expected = store(i, bytes, value[fields[i].name], at)
            if not at then
                return nil, expected
            end
        end
        return bytes, size
    end

    --- A view on the bytes, which `owner` keeps alive.
    local function view(bytes, size, owner)
        if size < fixed_size then
            return nil, ("%d bytes are too few"):format(size)
        elseif size > fixed_size and not layout.has_payloads then
            return nil, ("%d bytes are too many"):format(size)
        end
        return setmetatable({ cast(bytes_pointer, bytes), size, owner }, class)
    end

    local function decode(bytes, size)
        if size > COPY_MAX then
            return nil, too_large(size)
        end
        local owned = new(aligned_array, (size + 7) / 8)
        copy(owned, bytes, size)
        return view(owned, size, owned)
    end

    return encode, decode, view
end

--- The encoding for "id:u32,name:str", with or without struct{} around it; or nil and what is wrong with it.
return function(text)
    local layout, problem = parse(text:match("^struct{(.*)}$") or text)
    if not layout then
        return nil, problem
    end
    local class = view_class(layout)
    return {
        name = layout.schema_name,
        schema_name = layout.schema_name,
        codec = function()
            return codec(layout, class)
        end,
    }
end
