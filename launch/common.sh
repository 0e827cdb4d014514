# shellcheck shell=bash
# Sourced by the scripts that start trainings elsewhere: messages, quoting, steps that can be shown
# instead of run, checks of names.

# shellcheck source=setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"

# Set by --dry-run: commands are printed, not run.
DRY_RUN=""

# Where the workers of a TPU pod mount what --nfs names.
# shellcheck disable=SC2034  # read by the scripts for TPU pods
SHARED_FOLDER=/mnt/avt-shared

# Where buckets with run folders are mounted, each in a folder of its name.
BUCKETS_FOLDER=/mnt/avt-gcs

# How: what one host has written is seen by all others at once, where gcsfuse would keep what it knows of
# a file for a minute, and for ever on TPU hosts; what is synced is in the bucket, not only what is closed.
# The limit counts where the bucket has no folders, and renaming one moves each file.
GCSFUSE_OPTIONS=(--implicit-dirs --metadata-cache-ttl-secs=0 --metadata-cache-negative-ttl-secs=0
    --rename-dir-limit=200000 --enable-streaming-writes=false)

# fail MESSAGE: a mistake of the user; one sentence and exit code 2, as `avt` has it.
fail() {
    echo "avt: error: $*" >&2
    exit 2
}

# usage FILE: the comment at the top of a script is its help.
usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$1"; }

# need TOOL HINT: refuses to start without a program.
need() {
    [ -n "$DRY_RUN" ] || command -v "$1" >/dev/null || fail "'$1' was not found; $2."
}

# quoted WORD...: the words as one line that a shell reads as the same words.
quoted() {
    local line
    printf -v line '%q ' "$@"
    printf '%s' "${line% }"
}

# note TEXT: a heading; a comment in what --dry-run prints, which can be copied into a shell.
note() { if [ -n "$DRY_RUN" ]; then echo "# $*"; else say "$*"; fi; }

# step ADVICE COMMAND...: shows a command and runs it, or only shows it. When it fails, says so, with
# the exit code, which is returned, and the advice.
step() {
    local advice="$1" code=0
    shift
    if [ -n "$DRY_RUN" ]; then
        quoted "$@"
        echo
        return
    fi
    echo "\$ $(quoted "$@")"
    "$@" || code=$?
    [ "$code" -eq 0 ] || echo "avt: error: the command $(quoted "$@") failed with exit code $code. $advice" >&2
    return "$code"
}

# matches WHAT VALUE PATTERN RULE: refuses a value that is not wholly as an extended regular expression
# says. None that is used here admits a leading '-', so no value can be taken for an option.
matches() {
    local shown="'$2'"
    [[ "$2" != *[[:cntrl:]]* ]] || shown="$(quoted "$2")"
    [[ "$2" =~ ^($3)$ ]] || fail "$1 is $shown; it must be $4."
}

# name WHAT VALUE: what Google Cloud and Kubernetes both take for a name; 40 leave room for suffixes.
name() {
    matches "$1" "$2" '[a-z]([-a-z0-9]{0,38}[a-z0-9])?' \
        "up to 40 lower-case letters, digits and '-', with a letter first and no '-' last"
}

# whole WHAT VALUE [LEAST]: refuses what is no whole number, or is smaller.
whole() {
    matches "$1" "$2" '0|[1-9][0-9]{0,8}' "a whole number"
    [ "$2" -ge "${3:-0}" ] || fail "$1 is $2; it must be ${3:-0} or more."
}

# share WHAT VALUE: what names a share of an NFS server, in a form that mount takes for nothing else.
share() {
    matches "$1" "$2" '[A-Za-z0-9][A-Za-z0-9._-]*:(/[A-Za-z0-9_][A-Za-z0-9._-]*)+' \
        "HOST:/SHARE, such as 10.0.0.2:/runs"
}

# What Cloud Storage takes for the name of a bucket.
BUCKET_NAME='[a-z0-9]([a-z0-9_-]|\.[a-z0-9_-]){1,220}[a-z0-9]'

# find_workdir ARGS...: sets WORKDIR to the --workdir among arguments for `avt train`, or to nothing.
find_workdir() {
    local argument before=""
    WORKDIR=""
    for argument in "$@"; do
        if [ "$before" = --workdir ]; then WORKDIR="$argument"; fi
        case "$argument" in --workdir=*) WORKDIR="${argument#*=}" ;; esac
        before="$argument"
    done
}

# with_workdir FOLDER ARGS...: sets TRAIN to the arguments, with FOLDER as their --workdir.
with_workdir() {
    local folder="$1" i
    shift
    TRAIN=("$@")
    for ((i = 0; i < $#; i++)); do
        case "${TRAIN[i]}" in
            --workdir=*) TRAIN[i]="--workdir=$folder" ;;
            --workdir) i=$((i + 1)); TRAIN[i]="$folder" ;;
        esac
    done
}

# find_bucket: where WORKDIR is a URL, sets BUCKET, URL to the folder's address, and WORKDIR to its path
# where the bucket is mounted. Else BUCKET is empty.
find_bucket() {
    BUCKET="" URL=""
    [[ "$WORKDIR" == *://* ]] || return 0
    # Nothing that means something to a shell, or is a wildcard of gcloud.
    matches --workdir "$WORKDIR" "gs://$BUCKET_NAME(/[A-Za-z0-9_][A-Za-z0-9._=+@-]*)+/?" \
        "gs://BUCKET/FOLDER, such as gs://my-bucket/runs/a, of letters, digits and ._=+@-"
    URL="${WORKDIR%/}"
    BUCKET="${URL#gs://}"
    WORKDIR="$BUCKETS_FOLDER/$BUCKET"
    BUCKET="${BUCKET%%/*}"
}

# refuse_url ALSO [OPTION...]: refuses a URL as WORKDIR, and says how gcsfuse, with these options too, makes
# a folder of it. ALSO is what to give before --workdir, with FOLDER for where the bucket is mounted.
refuse_url() {
    local given="$WORKDIR" folder
    [[ "$given" == *://* ]] || return 0
    [[ "$given" == gs://* ]] || fail "--workdir is '$given', which is no file system; give a folder."
    find_bucket
    folder="$(quoted "$HOME/avt-gcs/$BUCKET")"
    fail "--workdir is '$given', which is no file system; mount the bucket, mkdir -p $folder && gcsfuse $(quoted "${GCSFUSE_OPTIONS[@]}" "${@:2}" "$BUCKET") $folder, and give ${1/FOLDER/"$folder"}--workdir $folder${URL#"gs://$BUCKET"}."
}

# value OPTION COUNT: refuses an option that is the last word, where COUNT words are left.
value() { [ "$2" -ge 2 ] || fail "$1 needs a value."; }

# find_avt: sets AVT to the program: the given one, that of the active environment, the checkout's.
find_avt() {
    if [ -z "${AVT:-}" ]; then
        AVT="$(command -v avt)" || AVT="$VENV/bin/avt"
        # What PATH has needs no path: what --dry-run prints stays short.
        [ "$AVT" = "$VENV/bin/avt" ] || AVT=avt
    fi
    [ -n "$DRY_RUN" ] || command -v "$AVT" >/dev/null ||
        fail "'avt' was not found; activate its environment, or make one: bash launch/setup.sh."
}
