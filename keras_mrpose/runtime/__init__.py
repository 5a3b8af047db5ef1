"""Networks that have left Keras: `.tflite` files and the sidecar that says what they are.

- `network`: one of them with the face of a `PoseModel`, for the predictor and the evaluation.
- `interpreter`: runs a `.tflite` file and looks inside; needs the extra `litert`.
- `quiet`: silence for LiteRT.
"""
