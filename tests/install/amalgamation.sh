# The engine as one file: it compiles alone, works, and exports nothing from a shared object that links it in.
#
#   sh amalgamation.sh <source folder> <cmake> <C compiler> <folder of xxhash.h>

set -eu
source=$1
cmake=$2
compiler=$3
xxhash=$4

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"$cmake" -D OUTPUT="$work" -D XXHASH_INCLUDE_DIR="$xxhash" -P "$source/core/amalgamate.cmake"
[ -s LICENSE ] && [ -s LICENSE.xxhash ]

"$compiler" -std=c11 -O2 -Wall -Wextra -Wshadow -Werror -fPIC -c opendiskmap.c
"$compiler" -I. "$source/tests/install/consumer/consumer.c" opendiskmap.o -pthread -o consumer
./consumer

"$compiler" -shared opendiskmap.o -pthread -o embedding.so
exported=$(nm -D --defined-only embedding.so)
[ -z "$exported" ] || { printf 'exported:\n%s\n' "$exported"; exit 1; }
