# Runs one driver, with its browsers and their profiles, until its caller says that
# the browsers have ended, or is gone, and leaves nothing behind.
dir=$(mktemp -d) || exit 1
trap '' PIPE INT
TMPDIR=$dir HOME=$dir "$1" --port=0 </dev/null &
driver=$!
# The caller reads to the end of the output if the driver ends at once.
exec >&-

end() {
    kill -TERM "$driver" 2>/dev/null
    wait "$driver" 2>/dev/null
    rm -rf "$dir"
}

if read -r ended; then
    end
else
    end
    # The browsers end because their driver has ended. Until then, they write into their profiles.
    for attempt in 1 2 3 4 5; do
        sleep 1
        rm -rf "$dir"
    done
fi
