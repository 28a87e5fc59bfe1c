#!/bin/sh
# Makes the committed baseline of the binary interface anew: the diff of opendiskmap-1.abi is then what reviewers look at.
#
#   sh tests/abi/update_baseline.sh [library]
#
# The library must have debug information: that of the preset release does.

set -eu
cd "$(dirname "$0")/../.."
library=${1:-build/release/core/libopendiskmap.so}

# The options in the last line keep folders of this machine out of the file. File names must stay: with --no-show-locs,
# abidiff takes every struct for a private one and reports nothing.
abidw --headers-dir include --drop-private-types --out-file tests/abi/opendiskmap-1.abi \
    --no-corpus-path --no-comp-dir-path --short-locs "$library"
