"""The pipeline around cnn: fetch -> preprocess -> train -> evaluate -> report, and what uses the result."""

from pipeline.bits import choose_portable

choose_portable()  # before any module here imports NumPy
