"""Images for people: joints drawn on photographs, heatmaps, and the curves of a training."""
