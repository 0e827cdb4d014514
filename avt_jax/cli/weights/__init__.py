"""Commands for released weights."""
