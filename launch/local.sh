#!/usr/bin/env bash
# Several processes of `avt train` on this machine, as on a pod: to try a training of many before it is
# paid for, or one process for each GPU.
#
#   bash launch/local.sh [options] -- AVT-TRAIN-ARGUMENTS...
#   bash launch/local.sh --processes 2 --devices-per-process 4 -- --config quickstart --workdir runs/two
#
#   --processes N             processes (2)
#   --devices-per-process D   devices of each: simulated ones on a CPU, or GPUs (1)
#   --platform cpu|cuda       what they compute on (cpu); with cuda, process I has the GPUs from I*D on
#   --port P                  port of the coordinator on 127.0.0.1 (one that is free)
#   --grace SECONDS           what the others have to end by themselves once one has failed (60)
#   --dry-run                 print the commands and run nothing
#
# Every line of output begins with the number of its process. Ctrl-C and SIGTERM are handed on to every
# process, which save a checkpoint; a second one ends them at once. The exit code is 0, or that of the
# first process that failed.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

processes=2 devices=1 platform=cpu port="" grace=60
while [ $# -gt 0 ]; do
    case "$1" in
        --processes) value "$1" $#; processes="$2"; shift 2 ;;
        --devices-per-process) value "$1" $#; devices="$2"; shift 2 ;;
        --platform) value "$1" $#; platform="$2"; shift 2 ;;
        --port) value "$1" $#; port="$2"; shift 2 ;;
        --grace) value "$1" $#; grace="$2"; shift 2 ;;
        --dry-run) DRY_RUN=1; shift ;;
        -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
        --) shift; break ;;
        *) fail "unknown option '$1'; what is meant for 'avt train' follows '--'." ;;
    esac
done
whole --processes "$processes" 1
whole --devices-per-process "$devices" 1
whole --grace "$grace"
matches --platform "$platform" 'cpu|cuda' "cpu or cuda"
[ -z "$port" ] || whole --port "$port" 1
[ $# -gt 0 ] || fail "no arguments for 'avt train'; they follow '--'."
find_workdir "$@"
refuse_url ""
find_avt

# A port without a listener, below those that Linux gives to connections that go out.
free_port() {
    local candidate
    for _ in {1..100}; do
        candidate=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$candidate") 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "found no free port between 20000 and 32000; name one with --port."
}
[ -n "$port" ] || port="$(free_port)"

# command_of I: sets COMMAND to what process I runs.
command_of() {
    if [ "$platform" = cpu ]; then
        # Of two flags the last counts.
        COMMAND=(env JAX_PLATFORMS=cpu
            "XLA_FLAGS=${XLA_FLAGS:+$XLA_FLAGS }--xla_force_host_platform_device_count=$devices")
    else
        COMMAND=(env "CUDA_VISIBLE_DEVICES=$(seq -s , $(($1 * devices)) $(($1 * devices + devices - 1)))")
    fi
    COMMAND+=("$AVT" train --coordinator "127.0.0.1:$port" --num-processes "$processes" --process-id "$1"
        "${@:2}")
}

if [ -n "$DRY_RUN" ]; then
    for ((i = 0; i < processes; i++)); do
        command_of "$i" "$@"
        quoted "${COMMAND[@]}"
        echo
    done
    exit 0
fi

pipes="$(mktemp -d)"
pids=() readers=()
stopped="" code=0 deadline=""

# signal_all NAME: to the processes themselves; their workers end with them.
signal_all() {
    local pid
    for pid in "${pids[@]}"; do kill -s "$1" "$pid" 2>/dev/null || true; done
}

# end_all: also what the processes have started, which would hold the pipes open.
end_all() {
    local pid
    for pid in "${pids[@]}"; do kill -s KILL -- "-$pid" 2>/dev/null || true; done
}

# shellcheck disable=SC2329  # called by the traps
hand_on() {
    if [ -n "$stopped" ]; then
        deadline="$SECONDS"
        end_all
    else
        stopped=1
        say "SIG$1: waiting for the checkpoint of every process; once more ends them at once"
        signal_all "$1"
    fi
}
trap 'hand_on INT' INT
trap 'hand_on TERM' TERM
trap 'rm -rf "$pipes"' EXIT

# A group for each: a Ctrl-C reaches this script alone, which hands it on once, and not the readers.
set -m
for ((i = 0; i < processes; i++)); do
    [ -z "$stopped" ] || break
    command_of "$i" "$@"
    mkfifo "$pipes/$i"
    sed -u "s/^/[$i] /" <"$pipes/$i" &
    readers+=($!)
    "${COMMAND[@]}" >"$pipes/$i" 2>&1 </dev/null &
    pids+=($!)
done
set +m

waiting=("${!pids[@]}")
while [ ${#waiting[@]} -gt 0 ]; do
    left=()
    for i in "${waiting[@]}"; do
        if kill -0 "${pids[i]}" 2>/dev/null; then
            left+=("$i")
            continue
        fi
        own=0
        wait "${pids[i]}" || own=$?
        [ "$own" -eq 0 ] && continue
        [ "$code" -ne 0 ] || code="$own"
        # After a signal each ends with 130 or 143 in its own time: what is left may still be saving.
        if [ -z "$deadline" ] && { [ -z "$stopped" ] || { [ "$own" -ne 130 ] && [ "$own" -ne 143 ]; }; }; then
            echo "avt: error: process $i ended with exit code $own; the others are told to stop and have $grace s." >&2
            deadline=$((SECONDS + grace))
            signal_all TERM
        fi
    done
    waiting=(${left[@]+"${left[@]}"})
    [ -z "$deadline" ] || [ "$SECONDS" -lt "$deadline" ] || end_all
    # In the background, as a signal is acted upon only between commands.
    if [ ${#waiting[@]} -gt 0 ]; then
        sleep 0.2 &
        wait $! || true
    fi
done
end_all
wait "${readers[@]}" || true
exit "$code"
