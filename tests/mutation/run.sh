#!/bin/sh
# run.sh - leaves one rule of the engine out after the other, and shows which suite notices.
#
#   sh tests/mutation/run.sh [-a] [name...]
#
# Without names: all of mutants.txt, after a run without any change. -a: runs every suite on each, rather than stopping at the
# first that notices. A suite notices if it fails, crashes or hangs. The last lines are a table. The exit status is 0 if each
# rule is held by a suite. Takes some seconds to a few minutes a rule, and a core. Several may run at once, each with a folder
# of its own in ODM_MUTATION_FOLDER. ODM_MUTATION_SUITES: other suites than those below.

set -u
cd "$(dirname "$0")/../.." || exit 1

all=
[ "${1-}" = -a ] && { all=yes; shift; }
list=tests/mutation/mutants.txt
folder=${ODM_MUTATION_FOLDER:-build/mutation}
seconds=900 # of a suite; then it hangs

# Those that are fast first. Short counts: what takes a campaign to be noticed is not noticed.
suites=${ODM_MUTATION_SUITES:-'unit_log unit_index unit_lock unit_map unit_meta unit_reader unit_sync unit_store unit_file
    unit_compact unit_walk unit_stamp crash_reboot crash_power fuzz_operations fuzz_recovery fuzz_index fuzz_lock fuzz_meta
    unit_batch unit_verify unit_backup model_model concurrency_kill concurrency_histories crash_fail concurrency_threads
    hostile_files concurrency_processes concurrency_step_kill'}
export ODM_TEST_KILLS="${ODM_TEST_KILLS:-200}" ODM_TEST_STEPS="${ODM_TEST_STEPS:-250}"

rm -rf "$folder/core"
mkdir -p "$folder/source" || exit 1
cp -rpu CMakeLists.txt core include tests "$folder/source/"
cp -r core "$folder/core"
# With asserts; they are there to notice.
cmake -S "$folder/source" -B "$folder/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG='-O1 -g' \
    -DOPENDISKMAP_BUILD_TESTS=ON > "$folder/configure.log" || exit 1

names=$*
[ -n "$names" ] || names="unmutated $(perl tests/mutation/apply.pl "$list")"

# Builds a suite with the library as it is, and runs it: 0 if it passes, 2 if it could not be built.
run_suite() {
    ninja -C "$folder/build" "$1" > "$folder/build.log" 2>&1 || return 2
    case $1 in
        fuzz_*) timeout "$seconds" "$folder/build/tests/fuzz/$1" "$folder/source/tests/fuzz/corpora/${1#fuzz_}" ;;
        *) timeout "$seconds" "$folder/build/tests/$1" --jobs 1 --timeout 300 ;;
    esac > "$folder/suite.log" 2>&1 || return 1
}

# Only what differs, so that only that is built again.
restore() {
    for file in "$folder"/core/*; do
        cmp -s "$file" "$folder/source/core/${file##*/}" || cp "$file" "$folder/source/core/"
    done
}

table=$folder/table
: > "$table"
for name in $names; do
    restore
    if [ "$name" != unmutated ]; then
        perl tests/mutation/apply.pl "$list" "$name" "$folder/source" || { echo "$name: NOT APPLIED" >> "$table"; continue; }
    fi
    noticed=
    for suite in $suites; do
        run_suite "$suite"
        case $? in
            0) continue ;;
            2) noticed=' NOT BUILT'; break ;;
        esac
        noticed="$noticed $suite"
        [ -n "$all" ] || break
    done
    if [ "$name" = unmutated ]; then
        [ -z "$noticed" ] || { echo "without any change these fail:$noticed"; exit 1; }
        continue
    fi
    echo "$name:${noticed:- NOBODY}" | tee -a "$table"
done
restore
echo
sort "$table"
! grep -q 'NOBODY\|NOT ' "$table"
