#!/bin/sh
# Runs an example in a fresh directory, which it removes, and fails unless the example prints what it should.
#
#   run_example.sh twice PROGRAM BASE    twice over one map; both outputs together must equal BASE.expected.
#                                        BASE.input, if there is one, is the program's input
#   run_example.sh at_once PROGRAM       entry.c: eight of them at once, counting into one map
#   run_example.sh workers PROGRAM       workers.js
#   run_example.sh unicode PROGRAM       unicode.c: its commands, one after the other
#   run_example.sh luajit_unicode PROGRAM READER   unicode.lua, the reader, on the maps that unicode.c has made
set -eu

method=$1
program=$2

# A map is not made on the writable layer of a container unless one insists. /dev/shm is none.
parent=${TMPDIR:-/tmp}
case $(stat -f -c %T "$parent") in
    overlay*) if [ -w /dev/shm ]; then parent=/dev/shm; fi ;;
esac
directory=$(mktemp -d "$parent/odm_example.XXXXXX")
trap 'rm -rf "$directory"' EXIT
trap 'exit 1' HUP INT TERM
output=$directory/output

fail() {
    echo "FAILED: $1"
    if [ -f "$output" ]; then cat "$output"; fi
    exit 1
}

# The output so far has a line that matches this basic regular expression.
expect() {
    grep -q -e "$1" "$output" || fail "no line of the output matches: $1"
}

twice() {
    expected=$1.expected
    input=/dev/null
    if [ -f "$1.input" ]; then input=$1.input; fi
    for run in 1 2; do
        "$program" "$directory/map" < "$input" >> "$output" || fail "run $run: exit code $?"
    done
    diff -u "$expected" "$output" || fail "the output differs from $expected"
}

at_once() {
    i=0
    while [ $i -lt 5000 ]; do
        echo "tick tock"
        i=$((i + 1))
    done > "$directory/input"
    processes=
    for process in 1 2 3 4 5 6 7 8; do
        "$program" "$directory/map" < "$directory/input" > /dev/null &
        processes="$processes $!"
    done
    for process in $processes; do
        wait "$process" || fail "one of the eight: exit code $?"
    done
    echo "tick tock" | "$program" "$directory/map" > "$output" || fail "the last: exit code $?"
    expect '^tick 40001$'
    expect '^tock 40001$'
}

workers() {
    "$program" "$directory/map" > "$output" 2>&1 || fail "exit code $?"
    expect 'workers answered, each with what had just been written$'
    expect 'each found all 200000 entries: true$'
    expect '^one map for 4 workers: [0-9]* MB'
    expect '^a copy in each of them: [0-9]* MB'
}

unicode() {
    file=${UNICODE_DATA:-/usr/share/unicode/UnicodeData.txt}
    if [ ! -r "$file" ]; then
        echo "skipped: there is no $file (package unicode-data)"
        exit 77
    fi
    run() {
        "$program" -m "$directory/map" -f "$file" "$@" >> "$output" 2>&1
    }
    if run U+2603; then fail "a look-up before the load should fail"; fi
    expect 'no map'
    run load || fail "load: exit code $?"
    expect 'loaded'
    run load || fail "load again: exit code $?"
    expect 'already there'
    run U+1F600 snowman U+AC01 7 'CJK UNIFIED IDEOGRAPH-4E2D' BELL || fail "look-up: exit code $?"
    expect 'U+1F600 *GRINNING FACE$'
    expect 'U+2603 *SNOWMAN$'
    expect 'U+AC01 *HANGUL SYLLABLE GAG$'
    expect 'U+0037 *DIGIT SEVEN$'
    expect 'U+4E2D *CJK UNIFIED IDEOGRAPH-4E2D$'
    expect 'U+1F514 *BELL$'
    if run 'NO SUCH CHARACTER'; then fail "a look-up of an unknown name should fail"; fi
    expect 'no character'
    run live || fail "live: exit code $?"
    expect 'has read it'
    if run U+E000; then fail "the name of the live demonstration should be gone"; fi
    run cost || fail "cost: exit code $?"
    expect 'wrong answers *0$'
    expect 'ns per look-up'
    expect 'on disk'
}

luajit_unicode() {
    file=${UNICODE_DATA:-/usr/share/unicode/UnicodeData.txt}
    if [ ! -r "$file" ]; then
        echo "skipped: there is no $file (package unicode-data)"
        exit 77
    fi
    "$program" -m "$directory/map" -f "$file" load > "$output" || fail "load: exit code $?"
    "$1" "$directory/map" U+1F600 snowman U+AC01 >> "$output" || fail "look-up: exit code $?"
    expect 'U+1F600 *GRINNING FACE$'
    expect 'U+2603 *SNOWMAN$'
    expect 'U+AC01 *HANGUL SYLLABLE GAG$'
    if "$1" "$directory/map" 'NO SUCH CHARACTER' >> "$output"; then fail "an unknown name should fail"; fi
    expect 'no character: NO SUCH CHARACTER'
    : > "$directory/live"
    "$1" "$directory/map" live > "$directory/live" &
    reader=$!
    until grep -q ready "$directory/live"; do
        kill -0 $reader || fail "the reader ended"
        sleep 0.1
    done
    while kill -0 $reader 2> /dev/null; do # It may have had no processor in the millisecond that one takes.
        "$program" -m "$directory/map" -f "$file" live > /dev/null || fail "live: exit code $?"
    done
    wait $reader || fail "the reader saw nothing"
    cat "$directory/live" >> "$output"
    expect 'LuaJIT has seen U+E000 as SMILING DISK NUMBER [0-9]*$'
}

case $method in
    twice) twice "$3" ;;
    at_once) at_once ;;
    workers) workers ;;
    unicode) unicode ;;
    luajit_unicode) luajit_unicode "$3" ;;
    *) fail "no such method: $method" ;;
esac
echo "passed"
