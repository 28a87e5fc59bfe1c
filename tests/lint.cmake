# Style and static analysis of the sources, as tests.

file(GLOB lint_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/core/*.c)
file(GLOB lint_headers CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/core/*.h)

find_program(CLANG_FORMAT NAMES clang-format clang-format-14)
find_program(CLANG_TIDY NAMES clang-tidy clang-tidy-14)

# Exit status 77: skipped.
set(missing sh -c "echo not installed; exit 77")

if(CLANG_FORMAT)
    odm_register_test(lint_format LABELS lint
        COMMAND ${CLANG_FORMAT} --dry-run -Werror ${lint_sources} ${lint_headers})
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
