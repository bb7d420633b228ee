"""How a network is computed: in fewer steps, in shards, on several workers. The result stays the same."""
