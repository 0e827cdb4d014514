#!/usr/bin/env bash
# From nothing to a trained, evaluated classifier: sets up an environment, renders AV-Events (real
# .mp4 files), extracts them, trains the tiny AVT on them, evaluates it and classifies a few files.
#
#   bash launch/quickstart.sh          the joint audio-video model
#   bash launch/quickstart.sh --all    also one model on audio alone and one on video alone
#
# Everything is written under runs/quickstart/. An interrupted run is continued by the same command;
# a finished one is replaced.
set -euo pipefail

models=(av)
case "${1:-}" in
    "") ;;
    --all) models=(av audio video) ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    *) echo "avt: error: unknown option '$1'; quickstart.sh takes --all or nothing" >&2; exit 2 ;;
esac

started=$SECONDS
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env
cd "$ROOT"
OUT=runs/quickstart
export JAX_PLATFORMS="${JAX_PLATFORMS:-}"

if [ -e "$OUT/results.json" ]; then
    say "Replacing the finished run in $OUT"
    rm -rf "$OUT"
fi
mkdir -p "$OUT/seconds"
echo $((SECONDS - started)) >"$OUT/seconds/install"

# stage NAME TITLE COMMAND...: runs a step once; its seconds are kept for results.json.
stage() {
    local name="$1" title="$2" begin=$SECONDS
    shift 2
    [ -e "$OUT/seconds/$name" ] && return
    say "$title"
    echo "\$ $*"
    "$@"
    echo $((SECONDS - begin)) >"$OUT/seconds/$name"
}

AVT=.venv/bin/avt
stage synthesize "1/6 Rendering AV-Events: 4 motions x 4 kinds of sound = 16 classes of real .mp4 files" \
    $AVT synthesize --out $OUT/videos --frame-rate-hz 16
stage extract "2/6 Decoding the videos into shards of frames and spectrograms" \
    $AVT extract --manifest $OUT/videos/clips.csv --out $OUT/shards --frame-rate 8 --short-side 72
stage inspect "3/6 A look at the data" \
    $AVT inspect $OUT/shards --out $OUT/contact_sheet.png
for model in "${models[@]}"; do
    stage "train_$model" "4/6 Training (modalities: $model)" \
        $AVT train --config quickstart --workdir "$OUT/$model" \
        --config.data.path=$OUT/shards "--config.model.modalities=$model"
    # The baseline is that of sound and picture together.
    baseline=()
    [ "$model" = av ] || baseline=(--no-baseline)
    stage "evaluate_$model" "5/6 Evaluating on the test split (modalities: $model)" \
        $AVT evaluate --checkpoint "$OUT/$model" --split test "${baseline[@]}"
done
# shellcheck disable=SC2046  # several names, none of which has a space
stage predict "6/6 Classifying three videos it has never seen" \
    $AVT predict --checkpoint $OUT/av --pictures $OUT/predictions \
    $(.venv/bin/python launch/quickstart_report.py --examples $OUT)
.venv/bin/python launch/quickstart_report.py $OUT
