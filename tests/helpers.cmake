# odm_add_test(): a program and its test. odm_add_script(): a shell script as a test.

find_package(PkgConfig REQUIRED)
pkg_check_modules(CRITERION REQUIRED IMPORTED_TARGET criterion)

# What several test files share. May be empty.
file(GLOB support_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/support/*.c)
add_library(test_support INTERFACE)
target_include_directories(test_support INTERFACE ${CMAKE_CURRENT_SOURCE_DIR}/support)
if(support_sources)
    add_library(test_support_code STATIC ${support_sources})
    target_compile_definitions(test_support_code PRIVATE _GNU_SOURCE)
    target_compile_options(test_support_code PRIVATE -Wall -Wextra -Wshadow -Wstrict-prototypes)
    target_include_directories(test_support_code PUBLIC ${CMAKE_CURRENT_SOURCE_DIR}/support)
    target_link_libraries(test_support_code PUBLIC opendiskmap_small PkgConfig::CRITERION Threads::Threads)
    target_link_libraries(test_support INTERFACE test_support_code)
endif()

# runner.c tells why Criterion's own runner is not used here.
add_library(test_criterion INTERFACE)
target_link_libraries(test_criterion INTERFACE PkgConfig::CRITERION)
if(OPENDISKMAP_SANITIZE OR OPENDISKMAP_COVERAGE)
    add_library(test_runner OBJECT runner.c)
    target_compile_definitions(test_runner PRIVATE _GNU_SOURCE)
    target_compile_options(test_runner PRIVATE -Wall -Wextra -Wshadow -Wstrict-prototypes)
    target_link_libraries(test_runner PRIVATE PkgConfig::CRITERION)
    target_sources(test_criterion INTERFACE $<TARGET_OBJECTS:test_runner>)
endif()

set(test_environment
    # A status that no test expects of itself.
    ASAN_OPTIONS=exitcode=99
    UBSAN_OPTIONS=print_stacktrace=1
    # Tests fork while they have threads. A test that ends by a signal must not take a report with it: stop at the first.
    TSAN_OPTIONS=die_after_fork=0:halt_on_error=1:second_deadlock_stack=1)

# GCC 12's ThreadSanitizer does not start where the kernel randomizes more address bits than it knows of.
set(test_launcher "")
if(OPENDISKMAP_SANITIZE MATCHES "thread")
    execute_process(COMMAND setarch -R true RESULT_VARIABLE setarch_failed OUTPUT_QUIET ERROR_QUIET)
    if(NOT setarch_failed)
        set(test_launcher setarch -R)
    endif()
endif()

# odm_add_test(<name> SOURCES <file>... [SMALL] [CRITERION] [LIBS <library>...] [ARGS <argument>...]
#              [LABELS <label>...] [TIMEOUT <seconds>])
#
# SMALL: links opendiskmap_small and tests/support, and sees core/; else the shared library, as a user's program does.
# CRITERION: the sources are Criterion tests; else they have a main of their own.
function(odm_add_test name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "SMALL;CRITERION" "TIMEOUT" "SOURCES;LIBS;ARGS;LABELS")
    add_executable(${name} ${arg_SOURCES})
    target_compile_definitions(${name} PRIVATE _GNU_SOURCE)
    target_compile_options(${name} PRIVATE -Wall -Wextra -Wshadow -Wstrict-prototypes)
    if(arg_SMALL)
        target_link_libraries(${name} PRIVATE test_support opendiskmap_small)
    else()
        target_link_libraries(${name} PRIVATE opendiskmap)
    endif()
    if(arg_CRITERION)
        target_link_libraries(${name} PRIVATE test_criterion)
        list(PREPEND arg_ARGS --jobs 1) # CTest runs programs side by side already.
    endif()
    target_link_libraries(${name} PRIVATE ${arg_LIBS} Threads::Threads)
    odm_register_test(${name} COMMAND ${test_launcher} $<TARGET_FILE:${name}> ${arg_ARGS}
        LABELS ${arg_LABELS} TIMEOUT ${arg_TIMEOUT})
endfunction()

# odm_add_script(<name> <script> [ARGS <argument>...] [LABELS <label>...] [TIMEOUT <seconds>])
function(odm_add_script name script)
    cmake_parse_arguments(PARSE_ARGV 2 arg "" "TIMEOUT" "ARGS;LABELS")
    odm_register_test(${name} COMMAND sh ${script} ${arg_ARGS} LABELS ${arg_LABELS} TIMEOUT ${arg_TIMEOUT})
endfunction()

function(odm_register_test name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "COMMAND;LABELS")
    if(NOT arg_TIMEOUT)
        set(arg_TIMEOUT 300)
    endif()
    set(test ${OPENDISKMAP_TEST_PREFIX}${name})
    add_test(NAME ${test} COMMAND ${arg_COMMAND})
    set_tests_properties(${test} PROPERTIES
        LABELS "${arg_LABELS}"
        TIMEOUT ${arg_TIMEOUT}
        SKIP_RETURN_CODE 77
        ENVIRONMENT "${test_environment}")
endfunction()
