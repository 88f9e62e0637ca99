# Runs one driver, with its browsers and their profiles, for as long as somebody
# holds the other end of our standard input, and leaves nothing behind, however
# that somebody ended.
dir=$(mktemp -d) || exit 1
trap '' PIPE INT
TMPDIR=$dir HOME=$dir "$1" --port=0 </dev/null &
driver=$!
read -r order
kill -TERM "$driver" 2>/dev/null
wait "$driver" 2>/dev/null
# Browsers that were not told to end write into their profiles to the last.
for attempt in 1 2 3 4 5; do
    rm -rf "$dir" 2>/dev/null
    [ -e "$dir" ] || break
    sleep 1
done
