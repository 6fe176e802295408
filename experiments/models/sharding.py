"""How networks lie on a mesh of devices."""

from typing import Any

from jax.sharding import Mesh, PartitionSpec

from adaste_jax import train


def decoder_rules(mesh: Mesh) -> list[tuple[str, PartitionSpec]]:
    """How a decoder lies on a mesh: the rules for `adaste_jax.train.state_sharding`.

    Products are split over the axis `"tensor"`: those that read a norm over their
    outputs, that is heads and hidden features, and those that follow over their inputs.
    So a block adds up activations of all these devices twice in the forward pass, and
    sends no weight. The table of embeddings, which is the head too, is split over the
    tokens. With an axis `"fsdp"` the same dimensions are split further, so that the
    other one is free to be packed (`gather="packed"`). The rest lies whole.

    Heads of keys and values should be a multiple of the devices of the axis `"tensor"`:
    the result is right anyway, but parts of heads are sent.

    Args:
        mesh: The mesh, from `data_mesh(fsdp=..., tensor=...)`.

    Reference:
        Shoeybi et al., "Megatron-LM", 2019, https://arxiv.org/abs/1909.08053.
    """
    axes = (train.TENSOR_AXIS, train.FSDP_AXIS)
    split: Any = tuple(axis for axis in axes if axis in mesh.axis_names) or None
    outputs, inputs = PartitionSpec(None, split), PartitionSpec(split)
    return [
        (r"/(query|key|value|gate|expand|head)/kernel$", outputs),
        (r"/(out|contract)/kernel$|/embed/embedding$", inputs),
        (r"_norm/scale$", PartitionSpec()),
    ]
