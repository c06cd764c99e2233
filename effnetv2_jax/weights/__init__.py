"""Weights of other libraries, in and out.

`parts` walks over a model's layers, `sources` has one table of names per library, and `convert`
turns their arrays into our variables and back.
"""
