# One session moves between a Node site and axum behind one port, both of them sign it
# out, and nothing is left behind, also if the example is killed. Sourced by the scripts
# beside this file, which set $example and $old.
set -euo pipefail
cd "$(dirname "$0")/.."
. .ci/example.sh

if ! command -v node >/dev/null || ! command -v npm >/dev/null; then
    [ "${CI:-}" != true ] || fail "no Node with npm on this machine"
    echo "skipped: no Node with npm on this machine"
    exit 0
fi

jar=$(mktemp)
expect() {
    local way=$1 page=$2 trail=$3 response
    response=$(curl --silent --location --cookie "$jar" --cookie-jar "$jar" -X "$way" "$url$page")
    grep -q "at: $trail<" <<<"$response" || fail "expected $trail of $way $page, got: $response"
}

start_example env -u DATABASE_URL PORT=0
expect GET / "$old"
expect GET /new "$old, axum"
expect GET / "$old, axum, $old"
curl --silent --cookie "$jar" --cookie-jar "$jar" -X POST "$url/new/logout"
expect GET / "$old"
expect GET /new "$old, axum"
curl --silent --cookie "$jar" --cookie-jar "$jar" -X POST "$url/logout" >/dev/null
expect GET /new axum
expect GET / "axum, $old"
rm -f "$jar"
node=$(pgrep -P "$running" -x node)
kill_example
for _ in $(seq 100); do
    [ -d "/proc/$node" ] || break
    sleep 0.1
done
[ ! -d "/proc/$node" ] || fail "$old outlives the example"
echo "one session at $old and axum, signed out by both; nothing left after kill -9"
