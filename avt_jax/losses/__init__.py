"""Losses: arrays in, named (sum, count) pairs out. No model code is imported here."""
