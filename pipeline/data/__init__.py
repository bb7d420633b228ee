"""The datasets: which ones exist, where their files come from, and how the files are read."""
