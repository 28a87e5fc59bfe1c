#!/bin/sh
# For --under, on a machine that others use, too; as root: hardly anybody takes the core away from a process that measures, and before a
# map is loaded memory is emptied of page cache, or the kernel has no large pieces of it to give.
#
#   sh bench/run.sh --under "sh bench/quiet.sh"
core="taskset -c 0"
first="chrt -f 1"
case " $* " in
    *" --phase describe "*) exec "$@" ;;
    *" --phase parallel "*) core= ;; # several threads are measured
    *_rocksdb* | *_sled*) core= first="nice -n -20" ;; # They have threads of their own; sled's would wait for each other forever.
esac
case " $* " in
    *" --phase load "* | *" --phase batch "*)
        sync
        echo 3 > /proc/sys/vm/drop_caches
        echo 1 > /proc/sys/vm/compact_memory ;;
esac
# shellcheck disable=SC2086 # Words of a command, or none.
exec $first $core "$@"
