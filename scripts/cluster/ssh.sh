#!/usr/bin/env bash
# One load from several machines that ssh reaches: the K-th host sends part K, and the results are merged here.
#
#   scripts/cluster/ssh.sh 'HOST HOST …' OUT [flags of loadgen run …]
#   scripts/cluster/ssh.sh 'load-1 load-2' all --target http://10.0.0.7:8080 --rate 40000 --idle 0s
#
#   AHEAD=40            seconds until the steady phase begins
#   LOADGEN=loadgen     the program, on every host and here
#   SSH='ssh -o …'      how a host is reached
set -euo pipefail

if [ $# -lt 2 ]; then sed -n '2,9s/^# \{0,1\}//p' "$0" >&2; exit 2; fi
read -ra hosts <<<"$1"
out=$2
shift 2
loadgen=${LOADGEN:-loadgen}
read -ra ssh <<<"${SSH:-ssh}"
run_id=ssh-$(date --utc +%Y%m%d-%H%M%S)
start_at=$(date --utc --date "+${AHEAD:-40} seconds" +%FT%TZ)
mkdir --parents "$out"

running=()
for part in "${!hosts[@]}"; do
    flags=(run --shard "$part/${#hosts[@]}" --start-at "$start_at" --run-id "$run_id" --json --quiet "$@")
    # One shell here and one there: quoted once more.
    "${ssh[@]}" "${hosts[$part]}" "$loadgen ${flags[*]@Q}" >"$out/shard-$part.json" 2>"$out/shard-$part.log" &
    running+=($!)
done
failed=0
for part in "${!running[@]}"; do
    code=0
    wait "${running[$part]}" || code=$?
    case $code in
        0 | 3 | 4 | 5) ;;
        *)
            echo "scripts/cluster/ssh.sh: ${hosts[$part]} (part $part) ended with $code:" >&2
            cat "$out/shard-$part.log" >&2
            failed=1
            ;;
    esac
done
[ "$failed" -eq 0 ] || exit 1
"$loadgen" merge "$out"/shard-*.json --out "$out"
