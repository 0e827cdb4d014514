"""From a manifest to shards: planned first, decoded in processes that may die, always the same."""
