"""From a trained policy to one file, and the torch-free runtime that plays it."""
