# Writes the engine as one C file, for packages that carry its source: opendiskmap.c, with opendiskmap.h, xxhash.h and the
# licences beside it.
#
#   cmake -D OUTPUT=<folder> [-D XXHASH_INCLUDE_DIR=<folder>] -P core/amalgamate.cmake
#
# To build it: cc -std=c11 -O2 -c opendiskmap.c, and link with -pthread. Nothing of it is exported from a shared object that
# links it in, unless ODM_API is defined to say so.

cmake_minimum_required(VERSION 3.25)

set(core ${CMAKE_CURRENT_LIST_DIR})
if(NOT OUTPUT)
    message(FATAL_ERROR "say where to: -D OUTPUT=<folder>")
endif()
if(NOT XXHASH_INCLUDE_DIR)
    find_path(XXHASH_INCLUDE_DIR xxhash.h PATHS /usr/local/include /usr/include)
endif()
if(NOT EXISTS ${XXHASH_INCLUDE_DIR}/xxhash.h)
    message(FATAL_ERROR "xxhash.h is missing: install libxxhash-dev, or set XXHASH_INCLUDE_DIR")
endif()

# Appends a file to `text`; our own headers once, where they are first asked for. CMake's lists would eat semicolons and
# brackets, so lines are cut off one by one only where an include stands.
set(included opendiskmap.h)
macro(append_file name)
    file(READ ${core}/${name} rest_${name})
    string(APPEND text "\n/* ==== ${name} ==== */\n")
    while(rest_${name} MATCHES "(^|\n)#include \"([a-z_]+\\.h)\"\n")
        set(header ${CMAKE_MATCH_2})
        string(FIND "${rest_${name}}" "#include \"${header}\"\n" at)
        string(SUBSTRING "${rest_${name}}" 0 ${at} before)
        string(LENGTH "#include \"${header}\"\n" length)
        math(EXPR after "${at} + ${length}")
        string(SUBSTRING "${rest_${name}}" ${after} -1 rest_${name})
        string(APPEND text "${before}")
        if(NOT header IN_LIST included)
            list(APPEND included ${header})
            append_file(${header})
            string(APPEND text "\n/* ==== ${name}, further ==== */\n")
        endif()
    endwhile()
    string(APPEND text "${rest_${name}}")
endmacro()

file(READ ${core}/../include/opendiskmap.h public_header)
string(REGEX MATCH "ODM_VERSION_STRING \"([0-9.]+)\"" found "${public_header}")
set(version ${CMAKE_MATCH_1})

file(GLOB sources RELATIVE ${core} ${core}/*.c)
set(text)
foreach(source ${sources})
    append_file(${source})
endforeach()
string(REPLACE "#include <xxhash.h>" "#include \"xxhash.h\"" text "${text}")

# The system's headers come first: what they declare is not ours to hide.
string(REGEX MATCHALL "\n#include <[a-z/]+\\.h>" system_headers "${text}")
list(REMOVE_DUPLICATES system_headers)
list(FILTER system_headers EXCLUDE REGEX emmintrin) # asked for only where the processor has it
list(SORT system_headers)
list(JOIN system_headers "" system_headers)

set(top "/* opendiskmap ${version}, the whole engine in one file. Generated from its sources; see opendiskmap.h.\n")
string(APPEND top " * Licence: MIT, in LICENSE. xxhash.h beside it: BSD 2-clause, in LICENSE.xxhash. */\n")
string(APPEND top "#ifndef _GNU_SOURCE\n#define _GNU_SOURCE\n#endif\n")
string(APPEND top "#include \"opendiskmap.h\"\n${system_headers}\n\n#pragma GCC visibility push(hidden)\n")
set(text "${top}${text}#pragma GCC visibility pop\n")

# The licence of xxhash.h is its first comment.
file(READ ${XXHASH_INCLUDE_DIR}/xxhash.h xxhash)
string(FIND "${xxhash}" "*/" end)
math(EXPR end "${end} + 3")
string(SUBSTRING "${xxhash}" 0 ${end} xxhash_licence)

file(WRITE ${OUTPUT}/opendiskmap.c "${text}")
file(WRITE ${OUTPUT}/LICENSE.xxhash "${xxhash_licence}")
file(COPY ${core}/../include/opendiskmap.h ${core}/../LICENSE ${XXHASH_INCLUDE_DIR}/xxhash.h DESTINATION ${OUTPUT})
