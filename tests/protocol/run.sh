#!/bin/sh
# run.sh - checks the models of the protocols with spin: each as built, and with each mutant, which must be found.
#
#   sh tests/protocol/run.sh [-l]
#
# Some 30 seconds. -l: wider bounds, minutes and some GB. Exits with 77 where spin is not installed.

set -u
cd "$(dirname "$0")" || exit 1
models=$PWD
command -v spin > /dev/null && command -v gcc > /dev/null || { echo 'spin and gcc are needed'; exit 77; }
long=
[ "${1-}" = -l ] && long=yes
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT
cd "$folder" || exit 1
failed=0

# check <model> <errors expected: 0, or 1 for any> <definition>...
check() {
    model=$1
    expected=$2
    shift 2
    rm -f pan*
    # What is soon found needs no optimizing.
    level=-O1
    [ "$expected" = 0 ] || level=-O0
    { spin "$@" -a "$models/$model.pml" && gcc $level -w -DSAFETY -DCOLLAPSE -DVECTORSZ=2048 -DMEMLIM=6000 -o pan pan.c; } > out 2>&1 || {
        cat out
        echo "$model $*: not built"
        failed=1
        return
    }
    ./pan -m1000000 -w22 > out 2>&1
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' out)
    states=$(sed -n 's/ *\([0-9.e+]*\) states, stored.*/\1/p' out)
    verdict=right
    [ "${errors:-none}" = "$expected" ] || verdict=WRONG
    # An error is an assertion that fails, and no other; without one all must have been looked at.
    if [ "$expected" = 0 ]; then
        grep -q 'max search depth too small\|memory limit\|out of memory' out && verdict='WRONG, not everything was looked at'
    else
        grep -q 'assertion violated' out || verdict='WRONG, no assertion'
    fi
    [ "$verdict" = right ] || failed=1
    printf '%-8s %-36s errors %s, %s states: %s\n' "$model" "$*" "${errors:-?}" "${states:-?}" "$verdict"
}

writes=3
[ -n "$long" ] && writes=5
check lookup 0 -DWRITES=$writes
for mutant in NO_RECYCLED LATE_RECYCLED ALWAYS_EMPTY FIRST_TOMBSTONE IN_PLACE; do
    check lookup 1 -DWRITES=4 -D$mutant
done
check append 0 -DSIZE_B=2
[ -z "$long" ] || check append 0 -DSIZE_B=1
for mutant in TAIL_FIRST NO_VOID NO_UNDER NO_FINISH ROLL_TAIL_FIRST NO_ZERO NO_FILL NO_SETTLE RESERVED_LAST; do
    check append 1 -D$mutant
done
check lock 0 -DTRIES=2
[ -z "$long" ] || check lock 0 -DTRIES=3
for mutant in NO_INCARNATION OWN_NUMBER BLIND_TAKE NO_DIRTY CLAIM_FIRST STEAL; do check lock 1 -D$mutant; done
check lanes 0 -DLOOKUPS=3
[ -z "$long" ] || check lanes 0 -DLOOKUPS=5
for mutant in NO_BARRIER NO_BAR GIVER_BLIND TAKER_BLIND UNBAR_CLOSED; do check lanes 1 -D$mutant; done
exit $failed
