# Runs one server until its standard input ends, which happens however the parent process ends. Then
# stops the server and deletes its folder.
dir=$1 bin=$2 source=$3
shift 3
# The environment is empty.
PATH=/usr/bin:/bin
trap '' PIPE INT
server=

start() {
    "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= "$@" >>"$dir/log" 2>&1 &
    server=$!
}

# TERM first: a shell starts its jobs with INT ignored, so only TERM ends a server that has not set
# its signal handlers yet.
end() {
    [ -n "$server" ] || return 0
    kill -TERM "$server"
    kill -INT "$server"
    wait "$server"
}

make_data() {
    if [ -n "$source" ]; then
        cp -a "$source/data" "$dir/data"
    else
        "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --no-locale --no-sync
    fi
}

if make_data >>"$dir/log" 2>&1; then
    echo ok
    while read -r order; do
        case $order in
            start) start "$@" ;;
            alive) kill -0 "$server" 2>/dev/null || server= ;;
            *)
                kill -"$order" "$server"
                wait "$server"
                server=
                ;;
        esac
        echo "ok $server"
    done
else
    echo failed
    read -r order
fi
end
# The server's disk, if it has one.
umount "$dir/disk" 2>/dev/null
rm -rf "$dir"
