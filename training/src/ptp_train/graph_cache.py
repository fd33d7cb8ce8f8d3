"""A graph's inputs and outputs for the key/value caches: what is read of earlier tokens, what is new."""

from .graph import FLOAT, Graph


def cache_inputs(g: Graph, layers: int, slots: int, width: int) -> tuple[list[list[str]], list[list[str]]]:
    """Past keys pk{layer}_{slot} and values pv{layer}_{slot} [1, P_slot, G*D], each as [layer][slot]."""
    return tuple(
        [[g.input(f"{name}{n}_{i}", FLOAT, [1, f"P{i}", width]) for i in range(slots)] for n in range(layers)]
        for name in ("pk", "pv")
    )


def new_rows(g: Graph, layer: int) -> tuple[str, str]:
    """Names of the outputs for a layer's new keys and values."""
    names = (f"nk{layer}", f"nv{layer}")
    for name in names:
        g.output(name, FLOAT, [1, "N", "G*D"])
    return names


def past_and_new(past: list[str], new: list[str]) -> list[list[str]]:
    return [list(pair) for pair in zip(past, new, strict=True)]
