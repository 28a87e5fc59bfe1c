#!/bin/sh
# Tests between languages. Exit status 77: skipped, and says what is missing.
#
#   run.sh vectors LANGUAGE           the language's own bytes against vectors.json
#   run.sh maps LANGUAGE              its maps are read by every language that is there, itself among them
#   run.sh live [N]                   processes of all languages write one map at once, N rounds each (a multiple of 12)
#   run.sh check                      vectors.json is what vectors.py makes
#
# Languages: c, node, luajit, go. The environment says where their parts are; a variable that is empty or unset means that the
# language is missing: INTEROP_C (interop.c, built), INTEROP_NODE (node; NODE_PATH finds the package), INTEROP_LUAJIT (luajit;
# LUA_PATH and LUA_CPATH find the module), INTEROP_GO (go; CGO_LDFLAGS finds the library), INTEROP_PYTHON.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
vectors=$here/vectors.json
languages='c node luajit go'

skip() {
    echo "skipped: $1"
    exit 77
}

fail() {
    echo "FAILED: $1"
    exit 1
}

# A map is not made on the writable layer of a container unless one insists. /dev/shm is none.
parent=${TMPDIR:-/tmp}
case $(stat -f -c %T "$parent") in
    overlay*) if [ -w /dev/shm ]; then parent=/dev/shm; fi ;;
esac
work=$(mktemp -d "$parent/odm_interop.XXXXXX")
export TMPDIR="$work"
running=
cleanup() {
    for process in $running; do kill "$process" 2> /dev/null || true; done
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 1' HUP INT TERM

# Whether a language is there; why not, if it is not.
present() {
    case $1 in
        c) [ -x "${INTEROP_C:-}" ] || { missing="C: libjansson-dev is not installed"; return 1; } ;;
        node) [ -x "${INTEROP_NODE:-}" ] || { missing="Node.js is not installed, or its binding not built"; return 1; } ;;
        luajit)
            [ -x "${INTEROP_LUAJIT:-}" ] || { missing="LuaJIT is not installed"; return 1; }
            "$INTEROP_LUAJIT" -e 'require("cjson")' 2> /dev/null || { missing="lua-cjson is not installed"; return 1; }
            ;;
        go)
            [ -x "${INTEROP_GO:-}" ] || { missing="Go is not installed"; return 1; }
            minor=$("$INTEROP_GO" env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
            [ "${minor:-0}" -ge 24 ] || { missing="Go is older than 1.24"; return 1; }
            ;;
        *) fail "there is no language $1" ;;
    esac
}

# Go's program is built here, for Go itself knows best what has to be built anew.
build() {
    case " $* " in *' go '*) ;; *) return 0 ;; esac
    (cd "$here/go" && GOTOOLCHAIN=local GOFLAGS=-buildvcs=false CGO_ENABLED=1 "$INTEROP_GO" build -o "$work/interop_go" .)
}

# in_language LANGUAGE COMMAND...
in_language() {
    case $1 in
        c) shift && exec "$INTEROP_C" "$@" ;;
        node) shift && exec "$INTEROP_NODE" "$here/interop.js" "$@" ;;
        luajit) shift && exec "$INTEROP_LUAJIT" "$here/interop.lua" "$@" ;;
        go) shift && exec "$work/interop_go" "$@" ;;
    esac
}

here_are=
missing_all=
for language in $languages; do
    missing=
    if present "$language"; then here_are="$here_are $language"; else missing_all="$missing_all; $missing"; fi
done
missing_all=${missing_all#; }

require() {
    case " $languages " in *" $1 "*) ;; *) fail "there is no language $1" ;; esac
    missing=
    present "$1" || skip "$missing"
}

case $1 in
    vectors)
        require "$2"
        build "$2"
        (in_language "$2" vectors "$vectors")
        ;;
    maps)
        require "$2"
        build $here_are
        (in_language "$2" write "$vectors" "$work/maps") || fail "$2 could not write"
        for language in $here_are; do
            (in_language "$language" read "$vectors" "$work/maps") || fail "$language could not read what $2 has written"
            echo "$language has read the maps of $2"
        done
        [ -z "$missing_all" ] || echo "not there, and skipped by tests of their own: $missing_all"
        ;;
    live)
        n=${2:-2400}
        build $here_are
        set -- $here_are
        index=0
        for language in "$@"; do
            (in_language "$language" live "$work/map" $index $# "$n") &
            running="$running $!"
            index=$((index + 1))
        done
        for process in $running; do
            wait "$process" || fail "one of$here_are: exit status $?"
        done
        running=
        echo "$here_are: $n rounds each, nothing lost"
        [ -z "$missing_all" ] || skip "passed without some languages: $missing_all"
        ;;
    check)
        [ -x "${INTEROP_PYTHON:-}" ] || skip "Python is not installed"
        "$INTEROP_PYTHON" "$here/vectors.py" --check
        ;;
    *) fail "there is no test $1" ;;
esac
