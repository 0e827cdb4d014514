"""AudioSet: AVT-B on 527 classes, of which a 10 s clip may have several.

Reproduces: nothing. AVT (arXiv:2401.04154) was not published on AudioSet; the recipe is that of
  `vggsound` with the sigmoid loss of a multi-label set.
Expects: not yet measured here. For comparison, mAP on the evaluation segments: AST 0.459 from
  sound alone (arXiv:2104.01778), MBT 0.439 when trained on the balanced segments.
Needs: an accelerator with bfloat16; hours not yet measured.
Run:
  avt manifest audioset --csv balanced_train_segments.csv --csv eval_segments.csv \
      --classes label=class_labels_indices.csv --videos VIDEOS --val-fraction 0.05 --out clips.csv
  avt extract --manifest clips.csv --out shards --classes label=clips.classes-label.txt
  avt train --config audioset --workdir runs/audioset --config.data.path=shards \
      --config.init.video=weights/uniformer --config.init.audio=weights/ast
"""

from configs import common


def get_config(arg=""):
    """`arg`: "" or "smoke"."""
    config = common.get_config()
    config.model.video_encoder.update(variant="B", drop_path=0.3)
    config.train.update(batch_size=32, epochs=50.0)
    common.audioset(config)
    return common.finish(config, arg, {"label": 527}, multi_label=("label",))
