# The preprocessed header is text that LuaJIT's ffi.cdef accepts, and means the same there.
#
#   sh cdef.sh <header> <library> <C compiler>

set -eu
header=$1
library=$2
compiler=$3

command -v luajit > /dev/null || { echo "luajit is not installed"; exit 77; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$compiler" -E -P -DOPENDISKMAP_CDEF "$header" > "$work/cdef.txt"
luajit "$(dirname "$0")/cdef.lua" "$work/cdef.txt" "$library"
