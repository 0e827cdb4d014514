# shellcheck shell=bash
# Sourced by tpu_pod.sh: its commands, one function each. Their settings are its variables.
# shellcheck disable=SC2153,SC2154

# What a call returns when the pod was taken away; no program that is called here has this code.
PREEMPTED=75

AGAIN="Run the same command again to go on from here."

check_type() {
    [ -n "$TYPE" ] || fail "--type is missing; 'gcloud compute tpus accelerator-types list --zone=$ZONE' names them."
    matches --type "$TYPE" '[a-z][a-z0-9-]*' "an accelerator type, such as v6e-16"
    # https://cloud.google.com/tpu/docs/runtimes
    if [ -z "$RUNTIME" ]; then
        case "$TYPE" in
            v6e-*) RUNTIME=v2-alpha-tpuv6e ;;
            v5p-*) RUNTIME=v2-alpha-tpuv5 ;;
            v5litepod-*) RUNTIME=v2-alpha-tpuv5-lite ;;
            v2-* | v3-* | v4-*) RUNTIME=tpu-ubuntu2204-base ;;
            *) fail "no software version is known for --type $TYPE; name one with --runtime." ;;
        esac
    fi
    matches --runtime "$RUNTIME" '[a-z0-9][a-z0-9._-]*' "a version, such as v2-alpha-tpuv6e"
}

# What --workdir says, of the training or of `fetch`; with --nfs, or at gs://, it becomes the path on the
# workers.
check_workdir() {
    find_bucket
    if [ -n "$BUCKET" ]; then
        [ -z "$NFS$SHARED" ] || fail "--workdir is '$URL', and the bucket is mounted for it: leave out --nfs and --shared, which are for run folders on a file system."
        return
    fi
    [ ${#GCSFUSE_ARGS[@]} -eq 0 ] || fail "--gcsfuse-arg is for a --workdir at gs://, and it is '$WORKDIR'."
    matches --workdir "$WORKDIR" '[A-Za-z0-9/~._].*' "a folder"
    [ -n "$NFS" ] || return 0
    case "/$WORKDIR/" in
        */../* | "/~"*) ;;
        "/$SHARED_FOLDER/"[!/]*) return ;;
        //*) ;;
        *) WORKDIR="$SHARED_FOLDER/$WORKDIR"; return ;;
    esac
    fail "--workdir is '$WORKDIR'; with --nfs it must be relative to the share, or a path under $SHARED_FOLDER."
}

# The training's own --workdir, for `run` and `all`.
check_run_folder() {
    find_workdir "${TRAIN[@]}"
    [ -n "$WORKDIR" ] || fail "the arguments for 'avt train' name no --workdir."
    check_workdir
    if [ -n "$BUCKET$NFS" ]; then
        with_workdir "$WORKDIR" "${TRAIN[@]}"
    elif [ -z "$SHARED" ]; then
        [ -z "$SPOT" ] || fail "--workdir is '$WORKDIR', and a Spot pod takes its disks along when it is taken away; give a --workdir at gs://, or --nfs HOST:/SHARE, or --shared if all workers mount it already."
        [ -n "$TYPE" ] || fail "with a --workdir on the pod's own disk, run needs the --type of the pod, which says whether it has one worker."
        # A host has up to 8 of what the types count, chips or cores.
        [[ "$TYPE" =~ -[1-8]$ ]] || fail "--workdir is '$WORKDIR', and a pod of --type $TYPE may have more than one worker; give a --workdir at gs://, or --nfs HOST:/SHARE, or --shared if all workers mount it already."
        TO="${TO:-runs/$NAME}"
    fi
}

# tpus GROUP VERB ARGS...: sets GCLOUD to the command, with zone and project.
tpus() { GCLOUD=(gcloud compute tpus "$@" "--zone=$ZONE" ${PROJECT:+"--project=$PROJECT"}); }

# ssh_step ADVICE WORKER LINE: a line of shell on workers. gcloud hands it on as it is.
ssh_step() {
    tpus tpu-vm ssh "$NAME" ${SSH_ARGS[@]+"${SSH_ARGS[@]}"} "--worker=$2" "--command=$3"
    step "$1" "${GCLOUD[@]}"
}

# scp_step ADVICE WORKER FROM TO [OPTION]
scp_step() {
    tpus tpu-vm scp "$3" "$4" ${5:+"$5"} ${SSH_ARGS[@]+"${SSH_ARGS[@]}"} "--worker=$2"
    step "$1" "${GCLOUD[@]}"
}

# worker_line COMMAND ARGS...: what runs launch/tpu_worker.sh there.
worker_line() { quoted bash avt/launch/tpu_worker.sh "$@"; }

# Sets STATE to what the queued resource is doing, or NONE.
look() {
    local told code=0
    tpus queued-resources describe "$NAME" "--format=value(state.state)"
    if [ -n "$DRY_RUN" ]; then
        step "" "${GCLOUD[@]}"
        STATE="$1"
        return
    fi
    told="$("${GCLOUD[@]}" 2>&1)" || code=$?
    STATE="${told##*$'\n'}"
    [ "$code" -eq 0 ] && return
    STATE=NONE
    [[ "$told" == *NOT_FOUND* ]] && return
    printf '%s\n' "$told" >&2
    echo "avt: error: the command $(quoted "${GCLOUD[@]}") failed with exit code $code. Whether the pod is there is not known: check 'gcloud auth list', the project and the zone." >&2
    STATE=UNKNOWN
    return "$code"
}

taken_away() { case "$STATE" in SUSPENDING | SUSPENDED) ;; *) return 1 ;; esac; }

# Said whenever a command ends: nobody shall pay for a pod that was forgotten.
tell_what_is_left() {
    local code=$? delete
    trap - EXIT
    # After an interruption it would hold on to the terminal or the pipe.
    [ -z "${NAP:-}" ] || kill "$NAP" 2>/dev/null || true
    delete="$(quoted bash launch/tpu_pod.sh delete "$NAME" --zone "$ZONE" ${PROJECT:+--project "$PROJECT"})"
    look || true
    case "$STATE" in
        NONE) ;;
        SUSPENDED | FAILED)
            say "The request $NAME is left in state $STATE. It costs nothing, and keeps its name until it is deleted:" >&2
            echo "    $delete" >&2
            ;;
        *)
            say "$NAME is left in state $STATE. A training that was started goes on. It costs money, from ACTIVE on, until it is deleted:" >&2
            echo "    $delete" >&2
            if [ "$code" -ne 0 ] && [ -t 0 ] && [ -t 2 ]; then offer_deletion; fi
            ;;
    esac
    exit "$code"
}

offer_deletion() {
    local answer
    read -r -p "Delete it now? What lies on its disks is lost. [y/N] " answer || return 0
    if [[ "$answer" == [yY]* ]]; then pod_delete || true; fi
}

pod_create() {
    note "Asking for $TYPE in $ZONE: $NAME"
    look NONE || return
    EXISTED=""
    [ "$STATE" = NONE ] || EXISTED=1
    if [ -z "$EXISTED" ]; then
        tpus queued-resources create "$NAME" "--node-id=$NAME" "--accelerator-type=$TYPE" \
            "--runtime-version=$RUNTIME" ${SPOT:+--spot} ${CREATE_ARGS[@]+"${CREATE_ARGS[@]}"}
        step "Check the type, the zone and the quota for it; see docs/launch.md." "${GCLOUD[@]}" || return
    fi
    pod_until_active
}

# In the background: a signal is acted upon only between commands.
nap() {
    sleep "$POLL" &
    NAP=$!
    wait "$NAP"
}

# missed: counts failed looks at the pod, and fails at the fifth in a row: connections come back.
missed() {
    MISSED=$((MISSED + 1))
    [ "$MISSED" -ge 5 ] || return 0
    echo "avt: error: $NAME could not be looked at 5 times in a row. What it was doing goes on. $AGAIN" >&2
    return 1
}

# Waiting costs nothing; what is asked for stays in the queue when this is interrupted.
pod_until_active() {
    local before=""
    MISSED=0
    while :; do
        if look ACTIVE; then MISSED=0; else missed || return; fi
        [ "$STATE" = "$before" ] || note "$NAME is $STATE"
        before="$STATE"
        case "$STATE" in
            ACTIVE) return 0 ;;
            SUSPENDING | SUSPENDED) return "$PREEMPTED" ;;
            FAILED)
                echo "avt: error: the request for $NAME has failed; 'gcloud compute tpus queued-resources describe $NAME --zone=$ZONE' says why. Delete it before you ask again." >&2
                return 1
                ;;
            NONE | DELETING)
                echo "avt: error: the request for $NAME was deleted by someone else." >&2
                return 1
                ;;
        esac
        nap
    done
}

pod_setup() {
    local commit archive line advice="$AGAIN"
    note "Setting up every worker of $NAME"
    if [ -n "$REPO" ]; then
        line="{ [ -d avt/.git ] || git clone --quiet -- $(quoted "$REPO") avt; } && git -C avt fetch --quiet origin"
        line+=" && git -C avt checkout --quiet --detach $(quoted "$COMMIT") && $(worker_line setup)"
        ssh_step "$advice" all "$line"
        return
    fi
    commit="$(git -C "$ROOT" rev-parse --quiet --verify "$COMMIT^{commit}")" ||
        fail "--commit is '$COMMIT'; this checkout has no such commit."
    [ -z "$(git -C "$ROOT" status --porcelain --untracked-files=no)" ] ||
        echo "avt: warning: changes that are not committed do not reach the workers, which get $commit." >&2
    archive="$ROOT/runs/launch/$commit.tar.gz"
    [ -n "$DRY_RUN" ] || mkdir -p "${archive%/*}"
    step "$advice" git -C "$ROOT" archive --format=tar.gz --prefix=avt/ "--output=$archive" "$commit" || return
    scp_step "$advice" all "$archive" "$NAME:avt.tar.gz" || return
    # The environment stays; of earlier code nothing does.
    line="rm -rf avt/avt_jax avt/configs avt/launch && tar -xzf avt.tar.gz && $(worker_line setup)"
    ssh_step "$advice" all "$line"
}

pod_run() {
    local line=""
    note "Starting the training on every worker of $NAME"
    # On a TPU VM the names of the workers are not in the environment: JAX itself knows where to look.
    [ -z "$NFS" ] || line="$(worker_line mount "$NFS") && "
    [ -z "$BUCKET" ] || line="$(worker_line mount-bucket "$BUCKET" ${GCSFUSE_ARGS[@]+"${GCSFUSE_ARGS[@]}"}) && "
    line+="$(worker_line start --distributed on "${TRAIN[@]}")"
    ssh_step "$AGAIN" all "$line" || return
    note "It goes on when this ends; to follow it: $(quoted bash launch/tpu_pod.sh logs "$NAME" --zone "$ZONE")"
}

# Sets RUNNING, to the number of workers that still train, and EXIT, to the first code but 0, or 0, or
# nothing when no worker has ever started.
read_status() {
    local told code=0 word host state number
    RUNNING=0 EXIT=""
    tpus tpu-vm ssh "$NAME" ${SSH_ARGS[@]+"${SSH_ARGS[@]}"} --worker=all "--command=$(worker_line status)"
    if [ -n "$DRY_RUN" ]; then
        step "" "${GCLOUD[@]}"
        EXIT=0
        return
    fi
    told="$("${GCLOUD[@]}" 2>&1)" || code=$?
    if [ "$code" -ne 0 ]; then
        printf '%s\n' "$told" >&2
        echo "avt: warning: the command $(quoted "${GCLOUD[@]}") failed with exit code $code." >&2
        return "$code"
    fi
    while read -r word host state number; do
        [ "$word" = avt-status ] || continue
        [ "$COMMAND" != status ] || echo "$host: $state $number"
        case "$state" in
            running) RUNNING=$((RUNNING + 1)) ;;
            exited) if [ "${EXIT:-0}" -eq 0 ]; then EXIT="$number"; fi ;;
        esac
    done <<<"$told"
}

pod_wait() {
    local rounds=0
    MISSED=0
    note "Waiting until the training on $NAME has ended"
    while :; do
        if look ACTIVE && { [ "$STATE" != ACTIVE ] || read_status; }; then
            MISSED=0
            if taken_away; then return "$PREEMPTED"; fi
            if [ "$STATE" != ACTIVE ]; then
                echo "avt: error: $NAME is $STATE; a training needs a pod that is ACTIVE." >&2
                return 1
            fi
            [ "$RUNNING" -gt 0 ] || break
            # The others notice by themselves when one has failed, but not always soon.
            [ "${EXIT:-0}" -eq 0 ] || rounds=$((rounds + 1))
            if [ "$rounds" -ge 10 ]; then
                note "A worker has ended with exit code $EXIT; stopping the $RUNNING others"
                pod_stop || true
                break
            fi
        else
            missed || return
        fi
        nap
    done
    if [ -z "$EXIT" ]; then
        echo "avt: error: no training was started on $NAME; start one with 'run'." >&2
        return 1
    fi
    ended
}

# Says how the training ended, and returns its exit code.
ended() {
    [ "$EXIT" -ne 0 ] || return 0
    # A pod that is taken away ends the training before it shows as suspended.
    look ACTIVE || true
    if taken_away; then return "$PREEMPTED"; fi
    ssh_step "" all "tail -n 30 avt_run/train.log" || true
    case "$EXIT" in
        2) echo "avt: error: 'avt train' refused its arguments or the data (exit code 2); the log above says what to change." >&2 ;;
        130 | 143) echo "avt: the training was stopped (exit code $EXIT) and has saved a checkpoint. $AGAIN" >&2 ;;
        *) echo "avt: error: the training failed with exit code $EXIT; the log above says why. The same command goes on from the last checkpoint." >&2 ;;
    esac
    return "$EXIT"
}

pod_logs() { ssh_step "$AGAIN" "$WORKER" "tail -n 100 -F avt_run/train.log"; }

pod_status() {
    look ACTIVE || return
    note "$NAME is $STATE"
    if [ "$STATE" = ACTIVE ]; then read_status; fi
}

pod_stop() { ssh_step "$AGAIN" all "$(worker_line stop)"; }

pod_fetch() {
    local into
    if [ -n "$BUCKET" ]; then
        # No worker is asked: the pod may be gone.
        into="$TO/${URL##*/}"
        note "Copying $URL to $into"
        step "Name another folder with --to." mkdir -p "$into" || return
        step "The bucket still has the results. $AGAIN" gcloud storage rsync --recursive "$URL" "$into" \
            ${PROJECT:+"--project=$PROJECT"}
        return
    fi
    note "Copying $WORKDIR to $TO"
    step "Name another folder with --to." mkdir -p "$TO" || return
    scp_step "The pod still has the results. $AGAIN" 0 "$NAME:$WORKDIR" "$TO" --recurse
}

pod_delete() {
    note "Deleting $NAME"
    tpus queued-resources delete "$NAME" --force --quiet
    step "The pod may still be there and cost money: look with 'gcloud compute tpus queued-resources list --zone=$ZONE', and delete it there." "${GCLOUD[@]}"
}

# The code under a training that runs already is left alone.
trains_already() { [ -n "$EXISTED" ] && read_status && [ "$RUNNING" -gt 0 ]; }

# One pod, from the request to the end of the training.
attempt() {
    local code=0
    pod_create && { trains_already || pod_setup; } && pod_run && pod_wait || code=$?
    if [ "$code" -ne 0 ] && [ "$code" -ne "$PREEMPTED" ] && [ "$code" -ne 2 ]; then
        # A step may have failed because the pod was taken away meanwhile.
        look ACTIVE || return "$code"
        if taken_away; then code="$PREEMPTED"; fi
    fi
    return "$code"
}

pod_all() {
    local code restarts=0
    while :; do
        code=0
        attempt || code=$?
        [ "$code" -eq "$PREEMPTED" ] || break
        if [ -z "$SPOT" ]; then
            echo "avt: error: the pod $NAME was taken away (state $STATE). Delete it before you run the same command again." >&2
            return 1
        fi
        if [ "$restarts" -ge "$MAX_RESTARTS" ]; then
            echo "avt: error: the pod $NAME was taken away again after $restarts restarts, the limit (--max-restarts). The same command goes on from the last checkpoint in ${URL:-$WORKDIR}." >&2
            pod_delete || true
            return 1
        fi
        restarts=$((restarts + 1))
        note "$NAME was taken away; restart $restarts of $MAX_RESTARTS"
        pod_delete || return
    done
    [ "$code" -eq 0 ] || return "$code"
    if [ -n "$TO" ]; then pod_fetch || return; fi
    [ -z "$KEEP" ] || return 0
    [ -n "$DRY_RUN" ] || mkdir -p "$ROOT/runs/launch"
    scp_step "The log is not kept." 0 "$NAME:avt_run/train.log" "$ROOT/runs/launch/$NAME.log" || true
    pod_delete
}
