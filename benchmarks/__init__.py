"""The speed of the library against PyTorch, the machine and plain Python loops; `make benchmark` runs it."""
