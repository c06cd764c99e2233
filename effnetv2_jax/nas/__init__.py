"""Architecture search: training-aware, over the paper's space or any fields of a config."""
