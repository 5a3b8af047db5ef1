"""Synthetic data: people drawn by a program, as a data set in COCO's format."""
