# Runs one server for as long as somebody holds the other end of its standard
# input, and leaves nothing behind, however that somebody ended.
dir=$1 bin=$2 source=$3
shift 3
# Nothing of the owner's environment is known here.
PATH=/usr/bin:/bin
trap '' PIPE INT
server=

start() {
    "$bin/postgres" -D "$dir/data" -k "$dir" -c listen_addresses= "$@" >>"$dir/log" 2>&1 &
    server=$!
}

# TERM first: a shell starts its jobs with INT ignored, so a server that has
# not set its handlers yet hears only TERM.
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
# A disk of its own, in a mount namespace of its own.
umount "$dir/disk" 2>/dev/null
rm -rf "$dir"
