# Runs one PgBouncer until its standard input ends, which happens however the parent process ends.
# Then stops it and deletes its folder.
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
