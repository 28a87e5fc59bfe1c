# The library has the binary interface of the committed baseline. After a change that is meant: update_baseline.sh.
#
#   sh baseline.sh <library>
#
# No suppressions: one that lets a struct grow also hides that its fields changed places (libabigail 2.2).

set -eu
library=$1
here=$(dirname "$0")

command -v abidiff > /dev/null || { echo "abidiff is not installed"; exit 77; }
test "$(uname -m)" = x86_64 || { echo "the baseline was made on x86_64"; exit 77; }

# Any non-zero status: reordered fields alone are only 4.
abidiff --headers-dir2 "$here/../../include" --drop-private-types "$here/opendiskmap-1.abi" "$library"
