"""The files that one stage writes and another reads, each with one typed record."""
