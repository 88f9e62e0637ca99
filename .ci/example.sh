# Starting and ending the example that $example names; sourced by the scripts
# beside this file.

fail() {
    echo "$*" >&2
    exit 1
}

# The usual tools, without any program of Postgres.
bare_path() {
    local bare
    bare=$(mktemp -d)
    for tool in sh rm cat; do
        ln -s "$(command -v "$tool")" "$bare/$tool"
    done
    echo "$bare"
}

# Becomes a command where the programs of the distribution are not to be found.
hidden() {
    if [ -d /usr/lib/postgresql ] && unshare --mount true 2>/dev/null; then
        exec unshare --mount sh -c 'mount -t tmpfs none /usr/lib/postgresql && exec "$@"' sh "$@"
    else
        exec "$@"
    fi
}

# Sets url and running. What the example leaves behind is left in $own.
own=$(mktemp -d)
# As root the server of the machine runs as another user, who must get in and
# clean up.
chmod 1777 "$own"
start_example() {
    cargo build --quiet --locked --example "$example"
    local program output
    program="${CARGO_TARGET_DIR:-target}/debug/examples/$example"
    output=$(mktemp)
    "$@" TMPDIR="$own" "$program" >"$output" &
    running=$!
    for _ in $(seq 300); do
        url=$(head -n 1 "$output")
        [ -z "$url" ] || break
        sleep 0.1
    done
    rm -f "$output"
    [ -n "$url" ] || fail "$example does not start"
}

kill_example() {
    kill -9 "$running"
    wait "$running" 2>/dev/null || true
    for _ in $(seq 200); do
        [ -n "$(ls -A "$own")" ] || return 0
        sleep 0.1
    done
    fail "$example left something behind: $(ls -A "$own")"
}
