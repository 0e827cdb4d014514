#!/usr/bin/env bash
# What runs on each worker of a TPU pod; launch/tpu_pod.sh calls it over ssh, from the home folder.
#
#   bash avt/launch/tpu_worker.sh setup            an environment in avt/.venv with the extra "tpu"
#   bash avt/launch/tpu_worker.sh mount SHARE      mounts HOST:/SHARE at /mnt/avt-shared
#   bash avt/launch/tpu_worker.sh mount-bucket BUCKET [GCSFUSE-OPTION...]   at /mnt/avt-gcs/BUCKET
#   bash avt/launch/tpu_worker.sh start ARGS...    `avt train ARGS` that outlives the connection
#   bash avt/launch/tpu_worker.sh status           one line: "avt-status HOST running|exited N|none"
#   bash avt/launch/tpu_worker.sh stop             SIGTERM: a checkpoint is saved
#
# avt_run/ has train.log and, once the training has ended, its exit code.
set -euo pipefail
# shellcheck source=common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
RUN="$HOME/avt_run"

setup() {
    local python
    if [ ! -x "$VENV/bin/python" ]; then
        if python="$(find_python 2>/dev/null)"; then
            "$python" -m venv "$VENV"
        else
            # The images of TPU VMs are older than the Python that is needed; uv brings one.
            say "No Python 3.11 to 3.13 here: installing one with uv"
            python3 -m pip install --user --quiet uv
            python3 -m uv venv --seed --python 3.12 "$VENV"
        fi
    fi
    # gcsfs reads shards at gs://.
    "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off -q -e "${ROOT}[tpu]" gcsfs
    "$VENV/bin/avt" --version
}

# mount_share HOST:/SHARE: once, however often it is called.
mount_share() {
    local mounted
    share "what is to be mounted" "${1:-}"
    mounted="$(findmnt --noheadings --output=SOURCE --mountpoint "$SHARED_FOLDER" || true)"
    if [ -z "$mounted" ]; then
        command -v mount.nfs >/dev/null || sudo apt-get install -y -q -o DPkg::Lock::Timeout=600 nfs-common
        sudo mkdir -p "$SHARED_FOLDER"
        # With NFS 3 a lock of a worker that was taken away would stay at the server, and keep out the
        # same training when it is continued: flock is for the processes of one worker.
        sudo mount -t nfs -o hard,local_lock=flock "$1" "$SHARED_FOLDER"
    elif [ "$mounted" != "$1" ]; then
        fail "$SHARED_FOLDER on $(hostname) has $mounted mounted, not $1; unmount it first: sudo umount $SHARED_FOLDER."
    fi
    [ ! -w "$SHARED_FOLDER" ] || return 0
    # A new share belongs to root.
    [ -z "$(find "$SHARED_FOLDER" -mindepth 1 -maxdepth 1 ! -name lost+found)" ] ||
        fail "$(id -un) may not write to $1; allow it on a machine that mounts it: sudo chmod a+rwx FOLDER."
    sudo chmod a+rwx "$SHARED_FOLDER"
}

# mount_bucket BUCKET OPTION...: once, however often it is called.
mount_bucket() {
    local name="${1:-}" folder mounted
    matches "what is to be mounted" "$name" "$BUCKET_NAME" "the name of a bucket"
    folder="$BUCKETS_FOLDER/$name"
    mounted="$(findmnt --noheadings --output=SOURCE --mountpoint "$folder" || true)"
    # What is left of a gcsfuse that has died.
    if [ -n "$mounted" ] && [[ "$(export LC_ALL=C; cd "$folder" 2>&1)" == *"not connected"* ]]; then
        sudo umount -l "$folder"
        mounted=""
    fi
    if [ -z "$mounted" ]; then
        command -v gcsfuse >/dev/null || install_gcsfuse
        # By and for the user who trains; nobody else may look into it.
        sudo mkdir -p "$folder"
        sudo chown "$(id -u):$(id -g)" "$folder"
        gcsfuse "${GCSFUSE_OPTIONS[@]}" "${@:2}" "$name" "$folder" </dev/null
    elif [ "$mounted" != "$name" ]; then
        fail "$folder on $(hostname) has $mounted mounted, not the bucket $name; unmount it first: sudo umount $folder."
    fi
    [ -w "$folder" ] || fail "$(id -un) may not write to $folder on $(hostname), which another user has mounted; unmount it first: sudo umount $folder."
}

# As https://cloud.google.com/storage/docs/cloud-storage-fuse/install has it.
install_gcsfuse() {
    sudo curl -fsS --output /usr/share/keyrings/cloud.google.asc https://packages.cloud.google.com/apt/doc/apt-key.gpg
    sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null \
        <<<"deb [signed-by=/usr/share/keyrings/cloud.google.asc] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main"
    sudo apt-get update -q
    sudo apt-get install -y -q -o DPkg::Lock::Timeout=600 gcsfuse
}

# The process that watches over the training: the environment of a process cannot be mistaken for
# that of another which has got its number since.
running() {
    local pid
    pid="$(cat "$RUN/pid" 2>/dev/null)" && grep -qz '^AVT_WATCHED=1$' "/proc/$pid/environ" 2>/dev/null
}

start() {
    local wanted
    find_workdir "$@"
    refuse_url ""
    wanted="$(quoted "$@")"
    mkdir -p "$RUN"
    if running; then
        [ "$(cat "$RUN/arguments")" = "$wanted" ] ||
            fail "another training runs on $(hostname): avt train $(cat "$RUN/arguments"); stop it first."
        echo "The training runs already."
        return
    fi
    rm -f "$RUN/exit_code"
    printf '%s' "$wanted" >"$RUN/arguments"
    AVT_WATCHED=1 setsid nohup bash "$ROOT/launch/tpu_worker.sh" watch "$@" \
        </dev/null >>"$RUN/train.log" 2>&1 &
    echo "$!" >"$RUN/pid"
}

watch() {
    local child code=0
    say "$(date -u +%FT%TZ) avt train $(quoted "$@")"
    PATH="$VENV/bin:$PATH" avt train "$@" &
    child=$!
    trap 'kill -TERM "$child" 2>/dev/null' TERM
    # A signal ends the first wait; the second has the code of the training.
    wait "$child" || code=$?
    while kill -0 "$child" 2>/dev/null; do
        code=0
        wait "$child" || code=$?
    done
    echo "$code" >"$RUN/exit_code.new"
    mv "$RUN/exit_code.new" "$RUN/exit_code"
}

status() {
    local state=none
    if running; then
        state=running
    elif [ -e "$RUN/exit_code" ]; then
        state="exited $(cat "$RUN/exit_code")"
    elif [ -e "$RUN/pid" ]; then
        # Killed with what watched over it, as by a machine that was started anew.
        state="exited 137"
    fi
    echo "avt-status $(hostname) $state"
}

stop() { if running; then kill -TERM "$(cat "$RUN/pid")"; fi; }

case "${1:-}" in
    setup | start | watch | status | stop)
        # What is given without a folder lies in the home folder, wherever this was called.
        cd
        "$@"
        ;;
    mount) mount_share "${@:2}" ;;
    mount-bucket) mount_bucket "${@:2}" ;;
    -h | --help) usage "${BASH_SOURCE[0]}" ;;
    *) fail "unknown command '${1:-}'; tpu_worker.sh takes setup, mount, mount-bucket, start, status or stop." ;;
esac
