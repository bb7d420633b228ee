"""What a person does with the project besides `dvc repro`."""
