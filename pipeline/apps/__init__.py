"""Commands for use by hand, besides `dvc repro`."""
