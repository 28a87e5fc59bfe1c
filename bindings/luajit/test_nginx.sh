# The binding in nginx, as the README's section on OpenResty says: a master that is root opens the map, workers that are not use
# the handle they inherit; one is killed, all are replaced by a reload, and no write is lost.
#
#   sh test_nginx.sh
#
# Needs root, nginx and its Lua module (Debian: nginx, libnginx-mod-http-lua; or OpenResty's nginx), else it is skipped.
# NGINX_PROGRAM and NGINX_MODULES may say where they are.
set -eu

nginx=${NGINX_PROGRAM:-$(command -v openresty || command -v nginx || true)}
modules=${NGINX_MODULES:-/usr/lib/nginx/modules}
[ -x "$nginx" ] || { echo "skipped: there is no nginx"; exit 77; }
[ "$(id -u)" = 0 ] || { echo "skipped: a master that is root needs root"; exit 77; }
load_modules=
if [ -e "$modules/ngx_http_lua_module.so" ]; then
    load_modules="load_module $modules/ndk_http_module.so; load_module $modules/ngx_http_lua_module.so;"
elif ! "$nginx" -V 2>&1 | grep -q lua; then
    echo "skipped: nginx has no Lua module"
    exit 77
fi

# A map is not made on the writable layer of a container unless one insists. /dev/shm is none.
parent=${TMPDIR:-/tmp}
case $(stat -f -c %T "$parent") in
    overlay*) parent=/dev/shm ;;
esac
work=$(mktemp -d "$parent/odm_nginx.XXXXXX")
chmod 755 "$work"
master=
trap 'if [ -n "$master" ]; then kill -9 -"$master" 2> /dev/null || true; fi; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

cat > "$work/nginx.conf" <<END
$load_modules
user nobody $(id -gn nobody);
daemon off;
worker_processes 3;
pid $work/pid;
error_log $work/error.log notice;
events { worker_connections 64; }
http {
    access_log off;
    client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3; uwsgi_temp_path $work/t4;
    scgi_temp_path $work/t5;
    lua_package_path "$LUA_PATH";
    lua_package_cpath "$LUA_CPATH";
    init_by_lua_block {
        local diskmap = require("opendiskmap")
        counts = assert(diskmap.open("$work/map", {
            key = diskmap.str, value = diskmap.u53, owner = "nobody", wait_ms = 1000,
        }))
        assert(counts:increment("masters"))
    }
    init_worker_by_lua_block {
        local mine = "worker " .. ngx.worker.pid()
        local function work()
            for _ = 1, 100 do
                assert(counts:increment("all"))
                assert(counts:increment(mine))
                assert(counts:view("all", function(all) return all[0] > 0 end))
            end
            if not ngx.worker.exiting() then
                ngx.timer.at(0.001, work) -- At 0 nginx would look after nothing else.
            end
        end
        ngx.timer.at(0, work)
    }
    server { listen unix:$work/socket; }
}
END

fail() {
    echo "FAILED: $1"
    cat "$work"/error.log "$work/output" 2>&1 || true
    exit 1
}

# count CODE: what a Lua expression over the map `counts` is, read by another process.
count() {
    luajit -e "
        local diskmap = require('opendiskmap')
        local counts = assert(diskmap.open('$work/map', { key = 'str', value = 'u53', read_only = true }))
        local function workers()
            local sum = 0
            for key, value in counts:pairs() do
                if key:find('^worker ') then sum = sum + value end
            end
            return sum
        end
        print($1)"
}

# later WHAT: the workers write 500 times more.
later() {
    goal=$(($(count 'counts:get("all") or 0') + 500))
    tries=0
    while [ "$(count 'counts:get("all") or 0')" -lt $goal ]; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || fail "no progress: $1"
        sleep 0.1
    done
}

workers() {
    ps -o pid= --ppid "$master" | sort
}

# A process group of its own, so that it ends with this script, whatever happens.
setsid "$nginx" -p "$work" -c "$work/nginx.conf" > "$work/output" 2>&1 &
master=$!
tries=0
until [ -e "$work/map/meta" ] && [ -s "$work/pid" ] && [ "$(workers | wc -l)" = 3 ]; do
    kill -0 $master 2> /dev/null || fail "nginx did not start"
    tries=$((tries + 1))
    [ $tries -lt 300 ] || fail "nginx did not get ready"
    sleep 0.1
done
later "at first"
for worker in $(workers); do
    [ "$(stat -c %U /proc/"$worker")" = nobody ] || fail "a worker is not nobody"
done

killed=0
for _ in 1 2 3; do
    kill -9 "$(workers | head -n 1)"
    killed=$((killed + 1))
    later "after a worker was killed"
done

before=$(workers)
kill -HUP "$master"
tries=0
while [ -n "$(printf '%s\n%s\n' "$before" "$(workers)" | sort | uniq -d)" ]; do
    tries=$((tries + 1))
    [ $tries -lt 300 ] || fail "the old workers stay"
    sleep 0.1
done
later "after a reload"
[ "$(count 'counts:get("masters")')" = 2 ] || fail "the reload did not run init_by_lua"

kill -QUIT "$master"
wait "$master" || fail "nginx ended with an error"
master=
grep -E 'error|alert|crit|emerg' "$work/error.log" | grep -v 'exited on signal 9' && fail "nginx has logged errors"

# A worker that was killed may have counted in "all" and not yet for itself.
missing=$(count 'counts:get("all") - workers()')
[ "$missing" -ge 0 ] && [ "$missing" -le $killed ] || fail "$missing writes differ"
[ -z "$(find "$work/map" ! -user nobody)" ] || fail "files of the map belong to somebody else"
echo "passed: $(count 'counts:get("all")') writes, $(count 'counts:count() - 2') workers"
