"""Whether a config suits its clips: for `avt doctor --config`, and at the start of a training."""
