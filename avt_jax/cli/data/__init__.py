"""Commands that make shards and look at them."""
