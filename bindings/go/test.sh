# Runs one test of the Go binding. Exit status 77: skipped.
#
#   sh test.sh <go, or empty> <build folder> <method> [<argument>...]
#
#   test, race, cgocheck      go test: plainly, with the race detector, with both checks of what is passed to C
#   cgo_only                  go test: without direct calls
#   module <cmake> <xxhash>   packs the module, then gets and uses it in an empty folder
#   unsupported               the message that somebody without cgo gets
#   format, vet               of the binding, its examples and its benchmark
#   example <name>            examples/go/<name>, twice over one map; at_once: eight of them at once
#   unicode <program>         examples/go/unicode, on the maps that this program, examples/unicode, makes
set -eu

go=$1
build=$2
method=$3
shift 3
binding=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$binding/../.." && pwd)

skip() {
    echo "skipped: $1"
    exit 77
}

fail() {
    echo "FAILED: $1"
    exit 1
}

[ -x "$go" ] || skip "Go is not installed"
GOTOOLCHAIN=local
export GOTOOLCHAIN
minor=$("$go" env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')
[ "${minor:-0}" -ge 24 ] || skip "$("$go" version) is older than 1.24"

# This build's library before all that link_repository.go names.
CGO_ENABLED=1
CGO_LDFLAGS="-L$build/core"
GOFLAGS=-buildvcs=false
export CGO_ENABLED CGO_LDFLAGS GOFLAGS

work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# -count=1: Go does not see that the library is another one.
go_test() {
    cd "$binding"
    "$go" test -count=1 "$@" ./...
}

# Gets the module from the folder it was packed into, as from a proxy, and nothing from elsewhere.
module() {
    "$1" -D OUTPUT="$work/proxy" -D XXHASH_INCLUDE_DIR="$2" -P "$binding/module.cmake"
    module=$(sed -n 's/^module //p' "$binding/go.mod")
    unset CGO_LDFLAGS
    GOPROXY=file://$work/proxy GONOSUMDB=* GOFLAGS=-buildvcs=false
    GOMODCACHE=$work/cache
    export GOPROXY GONOSUMDB GOFLAGS GOMODCACHE

    mkdir "$work/user"
    cd "$work/user"
    "$go" mod init example.com/user 2> /dev/null
    cp "$root/examples/go/quickstart/main.go" .
    "$go" get "$module@latest"
    "$go" mod verify
    used() {
        echo "$1"
        sh "$root/examples/run_example.sh" twice "$work/user/user" "$root/examples/go/quickstart"
        rm "$work/user/user"
    }
    "$go" build -o user .
    used "compiled with its source"
    "$go" test "$module" # Its own tests, as anybody may run them.
    "$go" build -ldflags '-linkmode external -extldflags "-static"' -o user .
    used "as a static program"
    "$go" mod vendor
    "$go" build -mod=vendor -o user .
    used "vendored"

    "$1" --install "$build" --prefix "$work/prefix" > /dev/null
    PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name opendiskmap.pc)")
    LD_LIBRARY_PATH=$(dirname "$PKG_CONFIG_PATH")
    export PKG_CONFIG_PATH LD_LIBRARY_PATH
    "$go" build -mod=mod -tags opendiskmap_system -o user .
    ldd user | grep -q libopendiskmap.so || fail "the installed library is not the one that is used"
    used "against the installed library"
}

unsupported() {
    cd "$binding"
    if CGO_ENABLED=0 "$go" build . > "$work/output" 2>&1; then fail "built without cgo"; fi
    grep -q 'set_CGO_ENABLED_to_1_and_install_a_C_compiler' "$work/output" || fail "$(cat "$work/output")"
}

format() {
    cd "$root"
    files=$("$(dirname "$go")/gofmt" -l bindings/go examples/go bench/go)
    [ -z "$files" ] || fail "gofmt would change: $files"
}

vet() {
    for folder in bindings/go examples/go; do
        cd "$root/$folder"
        "$go" vet ./...
    done
}

example() {
    cd "$root/examples/go"
    "$go" build -o "$work/program" "./$2"
    expected=go/$2
    [ -f "../$expected.expected" ] || expected=c/$2 # Where it prints the same.
    sh ../run_example.sh "$1" "$work/program" "../$expected"
}

unicode() {
    data=/usr/share/unicode/UnicodeData.txt
    [ -r "$data" ] || skip "there is no $data (package unicode-data)"
    cd "$root/examples/go"
    "$go" build -o "$work/program" ./unicode
    map=$work/map
    "$1" -m "$map" -f "$data" load
    "$work/program" "$map" U+1F600 snowman > "$work/output" || fail "look-up: exit code $?"
    grep -q 'U+1F600   GRINNING FACE$' "$work/output" || fail "$(cat "$work/output")"
    grep -q 'U+2603   SNOWMAN$' "$work/output" || fail "$(cat "$work/output")"
    if "$work/program" "$map" 'NO SUCH CHARACTER'; then fail "an unknown name should fail"; fi
    "$work/program" "$map"
}

case $method in
    test) go_test ;;
    race) go_test -race ;;
    cgo_only) go_test -tags opendiskmap_cgo_only ;;
    cgocheck) GODEBUG=cgocheck=1 GOEXPERIMENT=cgocheck2 go_test ;;
    module) module "$@" ;;
    unsupported) unsupported ;;
    format) format ;;
    vet) vet ;;
    example) example twice "$@" ;;
    at_once) example at_once "$@" ;;
    unicode) unicode "$@" ;;
    *) fail "no such method: $method" ;;
esac
