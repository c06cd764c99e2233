"""Makes a TFDS set of ArrayRecord files from folders or TFRecord files."""
