"""How fast the library is: against PyTorch, the machine and plain Python loops. Run by `make benchmark`."""
