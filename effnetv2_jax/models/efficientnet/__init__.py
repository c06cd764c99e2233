"""EfficientNet, V1 and V2, and its names in other libraries."""
