"""One file's pictures and sound, on one time axis."""
