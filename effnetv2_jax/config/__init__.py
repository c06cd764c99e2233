"""What a run is: its fields, how they are read and checked, and the recipes of the paper."""
