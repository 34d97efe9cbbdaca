"""Weights that other tools trained: their files, their names, and the policies that they become."""
