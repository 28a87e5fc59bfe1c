# The header compiles alone, in every language that includes it, without a warning.
#
#   sh header.sh <header> <C compiler>

set -eu
header=$1
compiler=$2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# First and alone, so that it must include what it needs; twice; and with every macro that has a value.
cat > "$work/user.c" << 'END'
#include "opendiskmap.h"
#include "opendiskmap.h"
#define CODE(name, code, message) + name
int user(void);
int user(void)
{
    odm_options options = ODM_OPTIONS_INIT;
    int codes = 0 ODM_STATUS_LIST(CODE);
    return (int)options.flags + codes + ODM_VERSION + (int)sizeof(ODM_VERSION_STRING) +
           (ODM_RECORD_SIZE_MAX < ODM_ABSENT);
}
END
cp "$work/user.c" "$work/user.cpp"

strict="-fsyntax-only -Wall -Wextra -pedantic -Werror -I$(dirname "$header")"
for cc in "$compiler" gcc clang; do
    command -v "$cc" > /dev/null || continue
    for standard in c99 c11; do
        echo "$cc -std=$standard"
        # shellcheck disable=SC2086 # $strict is several words.
        "$cc" -std=$standard $strict -Wstrict-prototypes "$work/user.c"
    done
    # A C compiler for C++, too: it needs no C++ library to read a header.
    echo "$cc -std=c++11"
    # shellcheck disable=SC2086
    "$cc" -x c++ -std=c++11 $strict "$work/user.cpp"
done
