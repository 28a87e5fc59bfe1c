# opendiskmap/cdef.lua is what generate_cdef.sh makes of the header now.
#
#   sh test_cdef.sh HEADER C_COMPILER
set -eu

here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

sh "$here/generate_cdef.sh" "$1" "$2" > "$work/cdef.lua"
# Compilers differ in blanks and line ends between declarations, and in nothing else.
words() {
    tr -s ' \n' '\n\n' < "$1"
}
words "$work/cdef.lua" > "$work/now"
words "$here/opendiskmap/cdef.lua" > "$work/then"
diff "$work/then" "$work/now"
luajit -e 'require("opendiskmap.library")'
