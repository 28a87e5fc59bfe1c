# The library exports what the version script lists, and the header declares the same: nothing less, nothing else.
#
#   sh exports.sh <header> <version script> <library> <C compiler>

set -eu
header=$1
script=$2
library=$3
compiler=$4

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

"$compiler" -E -P -DOPENDISKMAP_CDEF "$header" |
    grep -oE '\<odm_[a-z0-9_]+\(' | tr -d '(' | sort > "$work/header"
grep -oE '^ *odm_[a-z0-9_]+;' "$script" | tr -d ' ;' | sort > "$work/script"
# Absolute symbols (A) are the names of the versions.
nm -D --defined-only "$library" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort > "$work/library"

test -s "$work/header"
diff "$work/header" "$work/script"
diff "$work/script" "$work/library"
wc -l < "$work/library"
