"""MBT on AudioSet's balanced segments: the recipe that its authors published.

Reproduces: arXiv:2107.00135, AudioSet-mini (MBT-Base, 8 s of sound, bottleneck of 4 tokens from
  layer 8; SGD, lr 0.5, batch 64, 50 epochs, label smoothing 0.3, mixup 0.5). The paper takes 32
  frames, and log-mels of its own; here are 8 frames, as in our other MBT recipes.
Expects: mAP 0.439 in the paper, from ImageNet-21k weights in both towers; not yet measured here.
  The learning rate is for such weights: convert ViT's first.
Needs: an accelerator with bfloat16; hours not yet measured.
Run:
  avt manifest audioset --csv balanced_train_segments.csv --csv eval_segments.csv \
      --classes label=class_labels_indices.csv --videos VIDEOS --val-fraction 0.05 --out clips.csv
  avt extract --manifest clips.csv --out shards --classes label=clips.classes-label.txt
  avt convert vit --source B_16.npz --out weights/vit
  avt train --config mbt_audioset --workdir runs/mbt_audioset --config.data.path=shards \
      --config.init.video=weights/vit --config.init.audio=weights/vit
"""

from configs import common


def get_config(arg=""):
    """`arg`: "" or "smoke"."""
    config = common.mbt(common.get_config())
    common.audioset(config)
    return common.finish(config, arg, {"label": 527}, multi_label=("label",))
