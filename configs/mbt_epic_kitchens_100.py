"""MBT on EPIC-Kitchens-100: the baseline beside `epic_kitchens_100`.

Reproduces: arXiv:2107.00135 (MBT-Base, 8 frames, 8 s of sound, bottleneck of 4 tokens from layer 8)
  with the recipe its authors published for AudioSet: SGD, lr 0.5, batch 64, label smoothing 0.3.
Expects: verb 64.8, noun 58.0, action 43.4 top-1 in the paper, from ImageNet-21k weights in both
  towers; not yet measured here. The learning rate is for such weights: convert ViT's first.
Needs: an accelerator with bfloat16; hours not yet measured.
Run:
  avt convert vit --source B_16.npz --out weights/vit
  avt train --config mbt_epic_kitchens_100 --workdir runs/mbt_epic --config.data.path=shards \
      --config.init.video=weights/vit --config.init.audio=weights/vit
  avt evaluate --checkpoint runs/mbt_epic --split val --clips 4 \
      --epic ANNOTATIONS
"""

from configs import common


def get_config(arg=""):
    """`arg`: "" or "smoke"."""
    config = common.mbt(common.get_config())
    # Our choice: actions are short, and a short window needs little padding.
    config.data.update(clip_sec=4.0, freq_mask_bins=48, time_mask_frames=75)
    return common.finish(config, arg, {"verb": 97, "noun": 300})
