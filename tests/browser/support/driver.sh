# Runs one driver, with its browsers and their profiles, until its caller says that
# the browsers have ended, or is gone, and leaves nothing behind.
dir=$(mktemp -d) || exit 1
trap '' PIPE INT
TMPDIR=$dir HOME=$dir "$1" --port=0 </dev/null &
driver=$!

end() {
    kill -TERM "$driver" 2>/dev/null
    wait "$driver" 2>/dev/null
    rm -rf "$dir"
}

if read -r ended; then
    end
else
    end
    # Nobody told the browsers to end: they see that their driver is gone, and
    # write into their profiles to the last.
    for attempt in 1 2 3 4 5; do
        sleep 1
        rm -rf "$dir"
    done
fi
