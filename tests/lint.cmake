# Style and static analysis of the sources, as tests.

file(GLOB lint_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/core/*.c)
# But for opendiskmap.h, which is laid out by hand, as it is what people read; and interop.c, whose lists of X-macros the formatter
# lays out otherwise each time.
file(GLOB_RECURSE format_sources CONFIGURE_DEPENDS
    ${PROJECT_SOURCE_DIR}/core/*.[ch] ${PROJECT_SOURCE_DIR}/tests/*.[ch] ${PROJECT_SOURCE_DIR}/bench/*.[ch]
    ${PROJECT_SOURCE_DIR}/bench/*.cc ${PROJECT_SOURCE_DIR}/examples/*.[ch] ${PROJECT_SOURCE_DIR}/bindings/*.[ch])
list(FILTER format_sources EXCLUDE REGEX "/(node_modules|build)/|/interop\\.c$")

find_program(CLANG_FORMAT NAMES clang-format clang-format-14)
find_program(CLANG_TIDY NAMES clang-tidy clang-tidy-14)

# Exit status 77: skipped.
set(missing sh -c "echo not installed; exit 77")

if(CLANG_FORMAT)
    odm_register_test(lint_format LABELS lint
        COMMAND ${CLANG_FORMAT} --dry-run -Werror ${format_sources})
else()
    odm_register_test(lint_format LABELS lint COMMAND ${missing})
endif()

# A test a file, so that they run side by side. The flags are given here because the compilation database has each file
# several times, once a library.
foreach(file ${lint_sources})
    cmake_path(GET file STEM name)
    if(CLANG_TIDY)
        odm_register_test(lint_tidy_${name} LABELS lint
            COMMAND ${CLANG_TIDY} --quiet --warnings-as-errors=* ${file} --
                -std=c11 -D_GNU_SOURCE -I${PROJECT_SOURCE_DIR}/include -isystem ${XXHASH_INCLUDE_DIR})
    else()
        odm_register_test(lint_tidy_${name} LABELS lint COMMAND ${missing})
    endif()
endforeach()
