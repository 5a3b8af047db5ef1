"""What drawn people are made of: bodies, clothes, places, and a canvas to draw them on."""
