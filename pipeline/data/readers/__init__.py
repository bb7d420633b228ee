"""File formats of images and labels, one a file."""
