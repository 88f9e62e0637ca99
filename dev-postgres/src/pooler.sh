# Runs one PgBouncer for as long as somebody holds the other end of its standard
# input, and leaves nothing behind, however that somebody ended.
dir=$1 program=$2
PATH=/usr/sbin:/usr/bin:/bin
trap '' PIPE INT
"$program" "$dir/pgbouncer.ini" >>"$dir/log" 2>&1 &
pooler=$!
read -r _
kill -QUIT "$pooler"
kill -TERM "$pooler"
wait "$pooler"
rm -rf "$dir"
