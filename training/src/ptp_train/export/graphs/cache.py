"""Inputs of a graph for context tokens, and its inputs and outputs for their KV cache."""

from dataclasses import dataclass

from .graph import FLOAT, INT64, Graph, Stream, split_input


@dataclass(frozen=True)
class TokenInputs:
    """Names of the inputs for N packed tokens of some slots (see `target_graph`)."""

    ids: str
    positions: str
    splits: str | None
    masks: list[str]


@dataclass(frozen=True)
class ContextInputs(TokenInputs):
    """Also contains the names of the inputs for past tokens."""

    past_keys: list[list[str]]
    past_values: list[list[str]]


def context_inputs(g: Graph, layers: int, slots: int, width: int) -> ContextInputs:
    """Adds `token_inputs` and `cache_inputs`."""
    return ContextInputs(*token_inputs(g, slots), *cache_inputs(g, layers, slots, width))


def token_inputs(g: Graph, slots: int) -> tuple[str, str, str | None, list[str]]:
    """Adds ids and pos [1, N], splits [slots], and mask_{i} [T_i, S_i]. Returns the fields of `TokenInputs`."""
    ids, positions = g.input("ids", INT64, [1, "N"]), g.input("pos", INT64, [1, "N"])
    splits = split_input(g, "splits", slots)
    masks = [g.input(f"mask_{i}", FLOAT, [f"T{i}", f"S{i}"]) for i in range(slots)]
    return ids, positions, splits, masks


def cache_inputs(g: Graph, layers: int, slots: int, width: int) -> tuple[list[list[str]], list[list[str]]]:
    """Adds past keys pk{layer}_{slot} and values pv{layer}_{slot} [1, P_slot, G*D]. Returns their names as
    [layer][slot].
    """
    return tuple(
        [[g.input(f"{name}{n}_{i}", FLOAT, [1, f"P{i}", width]) for i in range(slots)] for n in range(layers)]
        for name in ("pk", "pv")
    )


def new_rows(g: Graph, layer: int) -> tuple[str, str]:
    """Adds outputs for a layer's new keys and values, and returns their names."""
    names = (f"nk{layer}", f"nv{layer}")
    for name in names:
        g.output(name, FLOAT, [1, "N", "G*D"])
    return names


def context_rows(stream: Stream, new: tuple[str, str], given: ContextInputs, layer: int) -> tuple[list, list]:
    """Returns the names of a layer's keys and values: for each slot, the names for its past tokens and for its new
    tokens.
    """
    past = (given.past_keys[layer], given.past_values[layer])
    return tuple(
        [list(pair) for pair in zip(rows, stream.split(x), strict=True)] for rows, x in zip(past, new, strict=True)
    )
