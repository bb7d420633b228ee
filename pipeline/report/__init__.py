"""Pictures and texts about a trained network."""
