"""VGGSound: AVT-B on 309 classes of 10 s clips.

Reproduces: arXiv:2401.04154, VGGSound (K = L = 4, batch 32 to 40, lr 1e-4, loss weight 0.5 for the
  contrastive term). The paper trains 50 to 300 epochs; 50 here is our choice.
Expects: the paper claims 10 points over a video-only transformer, from pre-trained
  encoders; not yet measured here.
Needs: an accelerator with bfloat16; hours not yet measured.
Run:
  avt convert uniformer --source uniformer_base_k400_16x4.pth --out weights/uniformer
  avt convert ast --source audioset_16_16_0.4422.pth --out weights/ast
  avt extract --manifest clips.csv --out shards
  avt train --config vggsound --workdir runs/vggsound --config.data.path=shards \
      --config.init.video=weights/uniformer --config.init.audio=weights/ast
  avt evaluate --checkpoint runs/vggsound --split test --clips 4
"""

from configs import common


def get_config(arg=""):
    """`arg`: "" or "smoke"."""
    config = common.get_config()
    config.model.video_encoder.update(variant="B", drop_path=0.3)
    config.train.update(batch_size=32, epochs=50.0)
    mean, std = common.AUDIO_STATISTICS["vggsound"]
    config.data.update(audio_mean=mean, audio_std=std, freq_mask_bins=48, time_mask_frames=150)
    return common.finish(config, arg, {"label": 309})
