"""Where labelled pictures are stored: TFDS sets, TFRecord files and folders, read one by one."""
