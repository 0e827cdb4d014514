"""Frozen encoders run once: what they give of each clip is kept, and trained on."""
