"""What is done to whole shard folders: verify, rewrite, measure, show."""
