#!/usr/bin/env bash
# A training on a Cloud TPU pod, from nothing to its results, with gcloud.
#
#   bash launch/tpu_pod.sh COMMAND NAME --zone ZONE [options] [-- AVT-TRAIN-ARGUMENTS...]
#
#   create   ask for a pod (a queued resource) and wait until it is there; it then costs money
#   setup    put this checkout on every worker, with an environment
#   run      start `avt train` on every worker; it goes on when the connection ends
#   wait     wait until it has ended; the exit code is that of the training
#   logs     follow the log of one worker
#   status   what the pod and the training on each worker are doing
#   stop     SIGTERM to the training, which saves a checkpoint; the pod stays
#   fetch    copy a folder of results: --workdir FOLDER --to FOLDER
#   delete   delete the pod; what lies on its disks is lost
#   all      create, setup, run, wait, fetch and delete. With --spot a pod that was taken away is asked
#            for again, and the same training continued. The same command goes on with a pod that is there
#
#   --zone ZONE               where, such as us-east5-b
#   --project PROJECT         the project (that of gcloud's configuration)
#   --type TYPE               accelerator type, such as v6e-16 (create, all, run)
#   --runtime VERSION         software version of the TPU VM (the one for the type)
#   --spot                    a Spot pod: cheaper, and may be taken away (create, all)
#   --create-arg=ARG          further argument of `queued-resources create`, such as --network=N; repeat
#   --ssh-arg=ARG             further argument of `tpu-vm ssh` and `scp`, such as --internal-ip; repeat
#   --commit COMMIT           what to put on the workers (HEAD); changes that are not committed stay here
#   --repo URL                clone it there instead of copying this checkout
#   --worker I|all            whose log (0)
#   --gcsfuse-arg=ARG         run, all: further option of gcsfuse, such as --temp-dir=/mnt/disk; repeat
#   --nfs HOST:/SHARE         run, all: mounted at /mnt/avt-shared on every worker, for the run folder; the
#                             training's --workdir is relative to it, or a path under it (fetch: the same)
#   --shared                  run, all: --workdir is on a file system that all workers mount already
#   --workdir FOLDER          fetch: a folder, copied from worker 0, or gs://BUCKET/FOLDER (all: that of
#                             the training)
#   --to FOLDER               where fetched results go (all: only if given, or if they are on the pod's disk)
#   --max-restarts N          how often a Spot pod is asked for again (10)
#   --keep                    all: leave the pod there after success
#   --poll SECONDS            between two looks at the pod (30)
#   --dry-run                 print the commands and run nothing
#
# The training's --workdir may be gs://BUCKET/FOLDER: every worker mounts the bucket with gcsfuse, which is
# installed where it is missing. A Spot pod, and a pod of more than one worker, need that, or --nfs, or
# --shared.
#
# Exit codes: 0; 2 for a mistake in the call; that of the training, or of the command that failed. After a
# failure the pod is left, and the last lines say so.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
# shellcheck source=tpu_pod_steps.sh
source "$ROOT/launch/tpu_pod_steps.sh"

case "${1:-}" in
    create | setup | run | wait | logs | status | stop | fetch | delete | all) COMMAND="$1" ;;
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail "unknown command '${1:-}'; tpu_pod.sh takes create, setup, run, wait, logs, status, stop, fetch, delete or all." ;;
esac
case "${2:-}" in
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    "") fail "the name of the pod is missing: tpu_pod.sh $COMMAND NAME --zone ZONE." ;;
esac
NAME="$2"
name "the name of the pod" "$NAME"
shift 2

ZONE="" PROJECT="" TYPE="" RUNTIME="" SPOT="" COMMIT=HEAD REPO="" WORKER=0 WORKDIR="" TO=""
NFS="" SHARED="" BUCKET="" URL=""
MAX_RESTARTS=10 KEEP="" POLL=30
CREATE_ARGS=() SSH_ARGS=() GCSFUSE_ARGS=()
while [ $# -gt 0 ]; do
    case "$1" in
        --zone) value "$1" $#; ZONE="$2"; shift 2 ;;
        --project) value "$1" $#; PROJECT="$2"; shift 2 ;;
        --type) value "$1" $#; TYPE="$2"; shift 2 ;;
        --runtime) value "$1" $#; RUNTIME="$2"; shift 2 ;;
        --spot) SPOT=1; shift ;;
        --create-arg=*) CREATE_ARGS+=("${1#*=}"); shift ;;
        --ssh-arg=*) SSH_ARGS+=("${1#*=}"); shift ;;
        --commit) value "$1" $#; COMMIT="$2"; shift 2 ;;
        --repo) value "$1" $#; REPO="$2"; shift 2 ;;
        --worker) value "$1" $#; WORKER="$2"; shift 2 ;;
        --gcsfuse-arg=*) GCSFUSE_ARGS+=("${1#*=}"); shift ;;
        --nfs) value "$1" $#; NFS="$2"; shift 2 ;;
        --shared) SHARED=1; shift ;;
        --workdir) value "$1" $#; WORKDIR="$2"; shift 2 ;;
        --to) value "$1" $#; TO="$2"; shift 2 ;;
        --max-restarts) value "$1" $#; MAX_RESTARTS="$2"; shift 2 ;;
        --keep) KEEP=1; shift ;;
        --poll) value "$1" $#; POLL="$2"; shift 2 ;;
        --dry-run) DRY_RUN=1; shift ;;
        -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
        --) shift; break ;;
        *) fail "unknown option '$1'; what is meant for 'avt train' follows '--'." ;;
    esac
done
TRAIN=("$@")

[ -n "$ZONE" ] || fail "--zone is missing; 'gcloud compute tpus locations list' names them."
matches --zone "$ZONE" '[a-z][a-z0-9-]*' "a zone, such as us-east5-b"
[ -z "$PROJECT" ] || matches --project "$PROJECT" '[a-z][a-z0-9.:-]*' "the ID of a project"
for argument in ${CREATE_ARGS[@]+"${CREATE_ARGS[@]}"} ${SSH_ARGS[@]+"${SSH_ARGS[@]}"}; do
    matches "--create-arg or --ssh-arg" "$argument" '--[a-z].*' "an option of gcloud, such as --network=default"
done
for argument in ${GCSFUSE_ARGS[@]+"${GCSFUSE_ARGS[@]}"}; do
    matches --gcsfuse-arg "$argument" '--[a-z].*' "an option of gcsfuse, such as --temp-dir=/mnt/disk"
done
matches --worker "$WORKER" 'all|0|[1-9][0-9]{0,4}' "a number or 'all'"
whole --max-restarts "$MAX_RESTARTS"
whole --poll "$POLL"
[ -z "$REPO" ] || matches --repo "$REPO" '[A-Za-z].*' "the address of a repository"
matches --commit "$COMMIT" '[A-Za-z0-9].*' "a commit, a branch or a tag"
[ -z "$TO" ] || matches --to "$TO" '[^-].*' "a folder, with ./ in front of a '-'"
[ -z "$NFS" ] || share --nfs "$NFS"
[ -z "$NFS" ] || [ -z "$SHARED" ] || fail "--nfs and --shared exclude each other: --nfs mounts a share, --shared says that one is mounted."
case "$COMMAND" in
    create | all) check_type ;;
esac
case "$COMMAND" in
    run | all)
        [ ${#TRAIN[@]} -gt 0 ] || fail "no arguments for 'avt train'; they follow '--'."
        check_run_folder
        ;;
    *) [ ${#TRAIN[@]} -eq 0 ] || fail "only run and all take arguments for 'avt train', not $COMMAND." ;;
esac
if [ "$COMMAND" = fetch ]; then
    [ -n "$WORKDIR" ] && [ -n "$TO" ] || fail "fetch needs --workdir FOLDER and --to FOLDER."
    check_workdir
fi
need gcloud "install the Google Cloud CLI (https://cloud.google.com/sdk/docs/install) and run 'gcloud auth login'"

case "$COMMAND" in
    create | setup | run | wait | all)
        trap 'exit 130' INT
        trap 'exit 143' TERM
        [ -n "$DRY_RUN" ] || trap tell_what_is_left EXIT
        ;;
esac
"pod_$COMMAND"
