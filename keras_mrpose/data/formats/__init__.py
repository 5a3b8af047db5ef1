"""File formats that hold annotations, read piece by piece and trusted in nothing."""
