"""What an evaluation is held against: training clips, the baseline, groups of sources."""
