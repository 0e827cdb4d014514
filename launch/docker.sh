#!/usr/bin/env bash
# Builds the image of launch/Dockerfile, and runs avt in it.
#
#   bash launch/docker.sh build [--device cpu|gpu|tpu] [--image IMAGE]
#   bash launch/docker.sh run [--device cpu|gpu] [--image IMAGE] [--mount FOLDER]... -- AVT-ARGUMENTS...
#   bash launch/docker.sh run --mount /data/runs -- train --config quickstart --workdir /data/runs/a
#
#   --device D       what the image computes on (cpu)
#   --image IMAGE    its name (avt:D); with a registry's name in front it can be pushed
#   --mount FOLDER   run: a folder that avt sees under the same path; repeat
#   --dry-run        print the command and run nothing
#
# avt runs as the user who calls this, so what it writes is theirs. The exit code is that of avt.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case "${1:-}" in
    build | run) COMMAND="$1"; shift ;;
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail "unknown command '${1:-}'; docker.sh takes build or run." ;;
esac
DEVICE=cpu IMAGE="" MOUNTS=()
while [ $# -gt 0 ]; do
    case "$1" in
        --device) value "$1" $#; DEVICE="$2"; shift 2 ;;
        --image) value "$1" $#; IMAGE="$2"; shift 2 ;;
        --mount)
            value "$1" $#
            matches --mount "$2" '/[^,]*' "an absolute path without ','"
            MOUNTS+=("--mount=type=bind,source=$2,target=$2"); shift 2 ;;
        --dry-run) DRY_RUN=1; shift ;;
        -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
        --) shift; break ;;
        *) fail "unknown option '$1'; what is meant for 'avt' follows '--'." ;;
    esac
done
matches --device "$DEVICE" 'cpu|gpu|tpu' "cpu, gpu or tpu"
IMAGE="${IMAGE:-avt:$DEVICE}"
matches --image "$IMAGE" '[a-z0-9][A-Za-z0-9._/:@-]*' "the name of an image, such as avt:gpu"
need docker "install it: https://docs.docker.com/engine/install"

if [ "$COMMAND" = build ]; then
    [ $# -eq 0 ] || fail "build takes no arguments for avt."
    # BuildKit reads launch/Dockerfile.dockerignore; the older builder does not.
    step "Read the lines above for the cause." env DOCKER_BUILDKIT=1 docker build \
        "--file=$ROOT/launch/Dockerfile" "--build-arg=DEVICE=$DEVICE" "--tag=$IMAGE" "$ROOT"
    exit
fi
[ $# -gt 0 ] || fail "no arguments for 'avt'; they follow '--'."
find_workdir "$@"
# Docker itself, which is root, has to see the folder.
refuse_url "--mount FOLDER and " -o allow_other
[ "$DEVICE" != tpu ] || fail "run is for cpu and gpu; launch/gke/submit.sh runs the image for TPUs."
# The loading processes hand batches over in shared memory, of which a container has 64 MB otherwise.
RUN=(docker run --rm --ipc=host "--user=$(id -u):$(id -g)" --env=HOME=/tmp ${MOUNTS[@]+"${MOUNTS[@]}"})
[ "$DEVICE" != gpu ] || RUN+=(--gpus=all)
step "If Docker knows no image of this name, build it: bash launch/docker.sh build --device $DEVICE." \
    "${RUN[@]}" "$IMAGE" "$@"
