#!/usr/bin/env bash
#SBATCH --job-name=millrace-load
#SBATCH --array=0-3
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --exclusive
#SBATCH --time=01:00:00
# One load from several machines, as a Slurm array: task K sends part K.
#
#   sbatch --export=ALL,START_AT=$(date -u -d '+5 minutes' +%FT%TZ) scripts/cluster/slurm.sh --target http://10.0.0.7:8080 --rate 40000 --idle 0s
#   loadgen merge millrace-results/slurm-JOB/*/run.json --out millrace-results/slurm-JOB
#
# All tasks have to run at START_AT: one that is still queued then refuses, and the merge misses it. The folder must be one that all machines
# share, LOADGEN says where loadgen is if it is not on PATH.
set -euo pipefail

: "${SLURM_ARRAY_TASK_ID:?is not set: start this with sbatch}" "${START_AT:?is not set: the time at which the steady phase begins, RFC 3339}"
part=$((SLURM_ARRAY_TASK_ID - SLURM_ARRAY_TASK_MIN))
# A verdict is no failure of the task.
"${LOADGEN:-loadgen}" run --shard "$part/$SLURM_ARRAY_TASK_COUNT" --start-at "$START_AT" --run-id "slurm-$SLURM_ARRAY_JOB_ID" --quiet "$@" || {
    code=$?
    case $code in 3 | 4 | 5) ;; *) exit "$code" ;; esac
}
