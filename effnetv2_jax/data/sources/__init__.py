"""Where labelled pictures come from: TFDS sets, TFRecord files, folders."""
