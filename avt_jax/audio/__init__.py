"""What is computed from sound alone: the log-mel filter bank that the audio encoder reads."""
