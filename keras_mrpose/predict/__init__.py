"""Prediction: from an image and person boxes to keypoints."""
