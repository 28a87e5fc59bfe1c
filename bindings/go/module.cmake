# Packs the Go module, for use without this repository: its sources, with the engine's as one C file beside them. What comes
# out is laid out as a Go module proxy, so that the folder can be served, or named in GOPROXY as file://<folder>.
#
#   cmake -D OUTPUT=<folder> [-D XXHASH_INCLUDE_DIR=<folder>] -P bindings/go/module.cmake

cmake_minimum_required(VERSION 3.25)

set(binding ${CMAKE_CURRENT_LIST_DIR})
set(root ${binding}/../..)
if(NOT OUTPUT)
    message(FATAL_ERROR "say where to: -D OUTPUT=<folder>")
endif()
file(REAL_PATH ${OUTPUT} OUTPUT)

file(STRINGS ${binding}/go.mod module REGEX "^module ")
string(REPLACE "module " "" module "${module}")
file(STRINGS ${root}/include/opendiskmap.h version REGEX "define ODM_VERSION_STRING ")
string(REGEX MATCH "[0-9]+\\.[0-9]+\\.[0-9]+" version "${version}")

set(stage ${OUTPUT}/stage)
set(package ${stage}/${module}@v${version})
file(REMOVE_RECURSE ${stage})
file(MAKE_DIRECTORY ${package})

set(definitions -D OUTPUT=${package})
if(XXHASH_INCLUDE_DIR)
    list(APPEND definitions -D XXHASH_INCLUDE_DIR=${XXHASH_INCLUDE_DIR})
endif()
execute_process(COMMAND ${CMAKE_COMMAND} ${definitions} -P ${root}/core/amalgamate.cmake COMMAND_ERROR_IS_FATAL ANY)

# Not compiled where the installed library is asked for.
file(READ ${package}/opendiskmap.c engine)
file(WRITE ${package}/opendiskmap.c "//go:build !opendiskmap_system\n\n${engine}")

file(GLOB sources ${binding}/*.go ${binding}/*.h)
list(REMOVE_ITEM sources ${binding}/link_repository.go)
file(COPY ${sources} ${binding}/internal ${binding}/go.mod ${binding}/README.md DESTINATION ${package})
file(WRITE ${package}/link_embedded.go [=[
//go:build !opendiskmap_system

package opendiskmap

// The engine is opendiskmap.c beside this file.

// #cgo CFLAGS: -std=gnu11 -O2 -DNDEBUG
// #cgo LDFLAGS: -lpthread
import "C"
]=])

set(versions ${OUTPUT}/${module}/@v)
file(MAKE_DIRECTORY ${versions})
# The same bytes whenever it is made: Go remembers the checksum of a version. Files alone: an entry for a folder is one that
# `go mod verify` does not find again.
file(GLOB_RECURSE files RELATIVE ${stage} ${package}/*)
list(SORT files)
execute_process(
    COMMAND ${CMAKE_COMMAND} -E tar cf ${versions}/v${version}.zip --format=zip "--mtime=2000-01-01 00:00:00 UTC" ${files}
    WORKING_DIRECTORY ${stage} COMMAND_ERROR_IS_FATAL ANY)
file(COPY_FILE ${package}/go.mod ${versions}/v${version}.mod)
file(WRITE ${versions}/v${version}.info "{\"Version\":\"v${version}\",\"Time\":\"2000-01-01T00:00:00Z\"}\n")
file(WRITE ${versions}/list "v${version}\n")
file(REMOVE_RECURSE ${stage})
message(STATUS "${versions}/v${version}.zip")
