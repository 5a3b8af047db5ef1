"""Weights files of every kind, checked before anything is assigned.

`checkpoints` knows any file that `build` takes; `state_dicts` those of the published networks, in and out;
`torch_names` what a tensor of a layer is called there; `folded_norms` those of a backbone whose batch norms are
folded; `npz` reads arrays. `torch_files` reads and writes PyTorch's
files without PyTorch: `torch_containers` are the two ways in which storages lie in them, `pickles` the small
interpreter that runs nothing.
"""
