"""Trackers that come with the package: CSV files, TensorBoard, Weights & Biases, MLflow.

A tracker is called with the run and its newest round after each finished round. If it has a method `epoch`,
this is called with the run and a `sal_fast.train.Epoch` after each epoch of each model. If it has a method
`close`, this is called when the run ends, for whatever reason. `base.Numbers` does what most have in common.
"""
