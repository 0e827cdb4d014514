"""MBT on VGGSound: the baseline beside `vggsound`.

Reproduces: arXiv:2107.00135 (MBT-Base, 8 frames, 8 s of sound, bottleneck of 4 tokens from layer 8)
  with the recipe its authors published for AudioSet: SGD, lr 0.5, batch 64, label smoothing 0.3.
Expects: 52.3 top-1 with audio alone in the paper, from ImageNet-21k weights in both
  towers; not yet measured here. The learning rate is for such weights: convert ViT's first.
Needs: an accelerator with bfloat16; hours not yet measured.
Run:
  avt convert vit --source B_16.npz --out weights/vit
  avt train --config mbt_vggsound --workdir runs/mbt_vggsound --config.data.path=shards \
      --config.init.video=weights/vit --config.init.audio=weights/vit
  avt evaluate --checkpoint runs/mbt_vggsound --split test --clips 4
"""

from configs import common


def get_config(arg=""):
    """`arg`: "" or "smoke"."""
    config = common.mbt(common.get_config())
    mean, std = common.AUDIO_STATISTICS["vggsound"]
    config.data.update(audio_mean=mean, audio_std=std, freq_mask_bins=48, time_mask_frames=150)
    return common.finish(config, arg, {"label": 309})
