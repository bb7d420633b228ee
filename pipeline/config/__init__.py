"""What a run does: params.yaml and architectures.yaml, read and checked."""
