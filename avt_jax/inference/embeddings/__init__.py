"""Vectors of clips and windows: made, stored in one file, and searched."""
