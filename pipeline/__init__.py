"""The pipeline around cnn: fetch -> preprocess -> train -> evaluate -> report, and commands that use the result."""
