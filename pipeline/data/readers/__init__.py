"""File formats of images and labels, one per module."""
