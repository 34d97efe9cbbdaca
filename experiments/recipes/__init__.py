"""Recipes, one file per benchmark: plain values, changed with `dataclasses.replace` or on the command line."""
