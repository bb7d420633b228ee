"""A reference to compare with: another CNN in NumPy, with the layers of `baseline`, on MNIST after 10 epochs.

Source: Abdullah Al Arif, "CNN From Scratch Using NumPy", the project's README, section 8.
"""

REFERENCE_ACCURACY = 0.8540
REFERENCE_SOURCE = "Abdullah Al Arif, “CNN From Scratch Using NumPy”, README, section 8"
