"""The pipeline around cnn: fetch -> preprocess -> train -> evaluate -> report, and what uses the result."""
