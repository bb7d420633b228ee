"""The DVC stages: fetch -> preprocess -> train -> evaluate."""
