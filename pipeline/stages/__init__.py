"""What dvc.yaml runs: fetch -> preprocess -> train -> evaluate -> report."""
