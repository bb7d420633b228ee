"""The datasets: which there are, where their files come from, and how those are read."""
