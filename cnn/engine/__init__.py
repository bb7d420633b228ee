"""How a network is computed: faster, in shards, on several workers; what it computes stays the same."""
