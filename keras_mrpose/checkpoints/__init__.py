"""Other people's weights files, checked before anything is assigned. Nothing here knows the networks of `models`.

- `torch_files`: PyTorch's files, read and written without PyTorch.
- `state_dicts`: checkpoints of the published networks, loaded and saved.
- `tensor_names`: what a layer's tensors are called there, and their layouts.
- `folded_norms`: backbones whose batch norms are folded into their convolutions.
"""
