"""Training is `model.fit`: build, compile, callbacks, and a run folder that `evaluate` and `predict` can use."""
