#!/usr/bin/env bash
# A training as a JobSet on a GKE cluster: fills in launch/gke/tpu.yaml or gpu.yaml and submits it with
# kubectl, to the cluster of its current context.
#
#   bash launch/gke/submit.sh tpu|gpu NAME --image IMAGE [options] -- AVT-TRAIN-ARGUMENTS...
#
#   --image IMAGE            of launch/Dockerfile, with DEVICE=tpu or gpu, in a registry
#   --accelerator A          node label: tpu-v6e-slice, tpu-v5-lite-podslice, nvidia-h100-80gb, ...
#   --topology T             tpu: topology of the slice, such as 4x4
#   --nodes N                pods, one for each node: chips of the slice / chips of a node (1)
#   --devices-per-node D     chips or GPUs of a node (tpu: 4, gpu: 8)
#   --namespace NAMESPACE    (default)
#   --service-account NAME   Kubernetes service account, for access to gs://
#   --volume CLAIM           persistent volume claim (ReadWriteMany) that every pod has at /runs, for the run
#                            folder, as in --workdir /runs/a
#   --queue NAME             local queue of Kueue
#   --spot                   on Spot nodes
#   --max-restarts N         how often all pods are started anew when one fails (10)
#   --grace SECONDS          between SIGTERM and SIGKILL, for the checkpoint (600)
#   --dry-run                print the manifest and the command, and run nothing
#
# The training's --workdir may be gs://BUCKET/FOLDER: every pod mounts the bucket, with the cluster's Cloud
# Storage FUSE CSI driver and the rights of --service-account. From two nodes on that or --volume is needed.
set -euo pipefail
# shellcheck source=../common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../common.sh"

case "${1:-}" in
    tpu) DEVICES=4 ;;
    gpu) DEVICES=8 ;;
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    *) fail "unknown kind '${1:-}'; submit.sh takes tpu or gpu." ;;
esac
KIND="$1"
NAME="${2:-}"
case "$NAME" in
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    "") fail "the name of the job is missing: submit.sh $KIND NAME --image IMAGE." ;;
esac
name "the name of the job" "$NAME"
shift 2

IMAGE="" ACCELERATOR="" TOPOLOGY="" NODES=1 NAMESPACE=default SERVICE_ACCOUNT="" QUEUE="" SPOT=""
VOLUME=""
MAX_RESTARTS=10 GRACE=600
# shellcheck disable=SC2034  # some are read by their names, in manifest
while [ $# -gt 0 ]; do
    case "$1" in
        --image) value "$1" $#; IMAGE="$2"; shift 2 ;;
        --accelerator) value "$1" $#; ACCELERATOR="$2"; shift 2 ;;
        --topology) value "$1" $#; TOPOLOGY="$2"; shift 2 ;;
        --nodes) value "$1" $#; NODES="$2"; shift 2 ;;
        --devices-per-node) value "$1" $#; DEVICES="$2"; shift 2 ;;
        --namespace) value "$1" $#; NAMESPACE="$2"; shift 2 ;;
        --service-account) value "$1" $#; SERVICE_ACCOUNT="$2"; shift 2 ;;
        --volume) value "$1" $#; VOLUME="$2"; shift 2 ;;
        --queue) value "$1" $#; QUEUE="$2"; shift 2 ;;
        --spot) SPOT=1; shift ;;
        --max-restarts) value "$1" $#; MAX_RESTARTS="$2"; shift 2 ;;
        --grace) value "$1" $#; GRACE="$2"; shift 2 ;;
        --dry-run) DRY_RUN=1; shift ;;
        -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
        --) shift; break ;;
        *) fail "unknown option '$1'; what is meant for 'avt train' follows '--'." ;;
    esac
done
[ -n "$IMAGE" ] || fail "--image is missing; launch/docker.sh builds one."
matches --image "$IMAGE" '[a-z0-9][A-Za-z0-9._/:@-]*' "an image, such as REGION-docker.pkg.dev/PROJECT/REPOSITORY/avt:tpu"
matches --accelerator "$ACCELERATOR" '[a-z0-9][a-z0-9-]*' "the label of the nodes, such as tpu-v6e-slice or nvidia-h100-80gb"
if [ "$KIND" = tpu ]; then
    matches --topology "$TOPOLOGY" '[1-9][0-9]*(x[1-9][0-9]*){1,2}' "a topology, such as 4x4"
elif [ -n "$TOPOLOGY" ]; then
    fail "--topology is for tpu; GPU nodes have none."
fi
whole --nodes "$NODES" 1
whole --devices-per-node "$DEVICES" 1
whole --max-restarts "$MAX_RESTARTS"
whole --grace "$GRACE" 1
name --namespace "$NAMESPACE"
[ -z "$SERVICE_ACCOUNT" ] || name --service-account "$SERVICE_ACCOUNT"
[ -z "$QUEUE" ] || name --queue "$QUEUE"
[ -z "$VOLUME" ] || name --volume "$VOLUME"
[ $# -gt 0 ] || fail "no arguments for 'avt train'; they follow '--'."
find_workdir "$@"
find_bucket
MOUNT_OPTIONS=""
if [ -n "$BUCKET" ]; then
    [ -z "$VOLUME" ] || fail "--workdir is '$URL', and the bucket is mounted for it: leave out --volume, which is for a run folder under /runs."
    [ -n "$SERVICE_ACCOUNT" ] || fail "--workdir is '$URL', which the pods may only write to as a service account; give --service-account NAME."
    with_workdir "$WORKDIR" "$@"
    set -- "${TRAIN[@]}"
    # Without dashes, and for the image's user. In the form of options: some versions of gcsfuse prefer what
    # they think best for the machine to what is given in the form of its configuration file.
    # https://github.com/GoogleCloudPlatform/gcsfuse/issues/4271
    # shellcheck disable=SC2034  # read by its name, in manifest
    printf -v MOUNT_OPTIONS '%s,' "${GCSFUSE_OPTIONS[@]#--}" uid=1000 gid=1000
    MOUNT_OPTIONS="${MOUNT_OPTIONS%,}"
elif [ -n "$VOLUME" ]; then
    case "$WORKDIR/" in
        */../*) inside="" ;;
        /runs/[!/]*) inside=1 ;;
        *) inside="" ;;
    esac
    [ -n "$inside" ] || fail "--workdir is '$WORKDIR'; with --volume it must be a path under /runs."
elif [ "$NODES" -gt 1 ]; then
    fail "--nodes is $NODES, and all pods must have the run folder; give a --workdir at gs://, or --volume CLAIM and a --workdir under /runs."
fi
if [ "$KIND" = tpu ]; then
    chips=$((${TOPOLOGY//x/*}))
    [ "$chips" -eq $((NODES * DEVICES)) ] ||
        fail "--topology $TOPOLOGY has $chips chips, and --nodes $NODES with --devices-per-node $DEVICES have $((NODES * DEVICES)); they must be as many."
fi

# A double-quoted scalar of YAML. Kubernetes reads $(NAME) in arguments as a variable, and $$ as $.
yaml_string() {
    local text="$1"
    [[ "${text//[$'\n\t\r']/}" != *[[:cntrl:]]* ]] || fail "an argument for 'avt train' has a control character: $(quoted "$1")."
    text="${text//\\/\\\\}"
    text="${text//\"/\\\"}"
    text="${text//$'\n'/\\n}"
    text="${text//$'\t'/\\t}"
    text="${text//$'\r'/\\r}"
    text="${text//\$/\$\$}"
    printf '"%s"' "$text"
}

# A line that ends with '#?OPTION' stays only when the option was given.
manifest() {
    local line key argument
    while IFS= read -r line; do
        if [[ "$line" == *' #?'* ]]; then
            key="${line##*#\?}"
            [ -n "${!key}" ] || continue
            line="${line% #\?*}"
        fi
        if [[ "$line" == *@ARGS@ ]]; then
            for argument in train "$@"; do
                argument="$(yaml_string "$argument")" || exit
                printf '%s- %s\n' "${line%@ARGS@}" "$argument"
            done
            continue
        fi
        # What is filled in was checked above, and holds nothing that YAML or this would read otherwise.
        for key in NAME NAMESPACE QUEUE MAX_RESTARTS NODES GRACE SERVICE_ACCOUNT VOLUME BUCKET BUCKETS_FOLDER MOUNT_OPTIONS ACCELERATOR TOPOLOGY IMAGE DEVICES; do
            line="${line//@$key@/"${!key}"}"
        done
        printf '%s\n' "$line"
    done <"$ROOT/launch/gke/$KIND.yaml"
}

text="$(manifest "$@")"
if [ -n "$DRY_RUN" ]; then
    printf '%s\n' "$text"
    echo "# kubectl create --filename=- reads the above"
    exit 0
fi
need kubectl "install it (gcloud components install kubectl) and get the cluster's credentials (gcloud container clusters get-credentials)"
say "Submitting $NAME"
step "If $NAME is there already, delete it first: kubectl delete jobset $NAME --namespace=$NAMESPACE. If JobSet is unknown, the cluster lacks it; see docs/launch.md." \
    kubectl create --filename=- <<<"$text"
cat <<END

The pods wait until nodes are free. Nodes cost money for as long as their pool has them, also when the
training has ended, unless the pool scales down to none by itself.

    kubectl get jobset,pods --namespace=$NAMESPACE --selector=jobset.sigs.k8s.io/jobset-name=$NAME
    kubectl logs --namespace=$NAMESPACE --selector=jobset.sigs.k8s.io/jobset-name=$NAME --prefix --follow --tail=20
    kubectl delete jobset $NAME --namespace=$NAMESPACE     stops it; the same command goes on
END
