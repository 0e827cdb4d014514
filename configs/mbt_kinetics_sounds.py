"""MBT on Kinetics-Sounds: the baseline beside `kinetics_sounds`.

Reproduces: arXiv:2107.00135 (MBT-Base, 8 frames, 8 s of sound, bottleneck of 4 tokens from layer 8)
  with the recipe its authors published for AudioSet: SGD, lr 0.5, batch 64, label smoothing 0.3.
Expects: 85.0 top-1 in the paper, from ImageNet-21k weights in both
  towers; not yet measured here. The learning rate is for such weights: convert ViT's first.
Needs: an accelerator with bfloat16; hours not yet measured.
Run:
  avt convert vit --source B_16.npz --out weights/vit
  avt train --config mbt_kinetics_sounds --workdir runs/mbt_ks --config.data.path=shards \
      --config.init.video=weights/vit --config.init.audio=weights/vit
  avt evaluate --checkpoint runs/mbt_ks --split val --clips 4
"""

from configs import common


def get_config(arg=""):
    """`arg`: "" or "smoke"."""
    config = common.mbt(common.get_config())
    config.data.update(freq_mask_bins=48, time_mask_frames=150)
    return common.finish(config, arg, {"label": 32})
