# Starting and ending the counter; sourced by the scripts beside this file.

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

# Sets url and counter. What the counter leaves behind is left in $own.
own=$(mktemp -d)
# As root the server of the machine runs as another user, who must get in and
# clean up.
chmod 1777 "$own"
start_counter() {
    cargo build --quiet --locked --example counter
    local program output
    program="${CARGO_TARGET_DIR:-target}/debug/examples/counter"
    output=$(mktemp)
    "$@" TMPDIR="$own" "$program" >"$output" &
    counter=$!
    for _ in $(seq 300); do
        url=$(head -n 1 "$output")
        [ -z "$url" ] || break
        sleep 0.1
    done
    rm -f "$output"
    [ -n "$url" ] || fail "the counter does not start"
}

kill_counter() {
    kill -9 "$counter"
    wait "$counter" 2>/dev/null || true
    for _ in $(seq 200); do
        [ -n "$(ls -A "$own")" ] || return 0
        sleep 0.1
    done
    fail "the counter left something behind: $(ls -A "$own")"
}
