"""What a Qwen text model remembers of the places it has seen.

    allocate(shape) -> KVCache --Extension.put, once a layer--> longer KVCache

A place is the same for every row, so that a batch goes on in lock-step and a graph can be
recorded; which row has a token there says the mask, and where that token stands in its
text say its rotated keys. Memory: 28 KiB a token for Qwen2-VL-2B in bfloat16.

Without gradients the buffers have room for what is to come and are written in place. With
gradients nothing is overwritten: an extension is a concatenation, and the cache it grew
from stays as it was. Where layers are computed again in the backward pass, even that is left
to them: what each extension added is kept apart, so that no step keeps the places before it
a second time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# Attention goes over so many places more or less: matrix products are slow over rows that
# are no multiple of 16 bytes long, and the steps of a thought are of one shape.
SEEN_STEP = 16


@dataclass(frozen=True, slots=True)
class BufferShape:
    """What buffers of keys and values look like: ``layers`` times two of the four in the middle."""

    layers: int
    rows: int
    kv_heads: int
    places: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def num_bytes(self) -> int:
        """Memory that keys and values take together."""
        one = self.rows * self.kv_heads * self.places * self.head_dim * self.dtype.itemsize
        return 2 * self.layers * one


@dataclass(frozen=True, slots=True, eq=False)
class KVCache:
    """Keys and values of every layer; an extension hands on another one.

    keys, values:  one ``[B, kv_heads, places, head_dim]`` a layer
    mask:          ``[B, places]``, False where a row has no token; True ahead of ``length``
    next_position: ``[B]``, where the row's next token stands on all three axes
    length:        places written so far, the same in every row
    apart:         the last places of every layer, where they are not in the buffers: keys and
                   values ``[B, kv_heads, m, head_dim]`` of one extension after the other
    lease:         what keeps lent buffers from being lent again while a cache holds them
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    mask: Tensor
    next_position: Tensor
    length: int
    apart: tuple[tuple[tuple[Tensor, Tensor], ...], ...] = ()
    lease: object | None = None

    @property
    def places(self) -> int:
        """How many places the buffers have, written or not."""
        return self.mask.shape[1]

    def with_room(self, num_new: int) -> "KVCache":
        """Return this cache, or a copy in larger buffers where ``num_new`` places do not fit."""
        needed = self.length + num_new
        if self.apart:
            return self.joined().with_room(num_new)
        if needed <= self.places:
            return self
        rows, kv_heads, _, head_dim = self.keys[0].shape
        # Half as much again, so that a long thought does not copy everything at every token.
        places = needed + needed // 2
        first = self.keys[0]
        shape = BufferShape(
            len(self.keys), rows, kv_heads, places, head_dim, first.dtype, first.device
        )
        grown = allocate(shape)
        for new, old in zip((*grown.keys, *grown.values), (*self.keys, *self.values), strict=True):
            new[:, :, : self.length] = old[:, :, : self.length]
        grown.mask[:, : self.length] = self.mask[:, : self.length]
        return replace(grown, next_position=self.next_position, length=self.length)

    def pieces(self, layer: int) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return keys and values of a layer's places so far, one piece after the other."""
        apart = self.apart[layer] if self.apart else ()
        first = self.length - sum(k.shape[2] for k, _ in apart)
        kept = (self.keys[layer][:, :, :first], self.values[layer][:, :, :first])
        return (kept, *apart) if first else apart

    def joined(self) -> "KVCache":
        """Return this cache with all its places in ``keys`` and ``values``."""
        if not self.apart:
            return self
        joint = [joined_pieces(self.pieces(i)) for i in range(len(self.keys))]
        keys, values = zip(*joint, strict=True)
        return replace(self, keys=keys, values=values, apart=())


def joined_pieces(pieces: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return keys and values of all places of some pieces."""
    keys, values = zip(*pieces, strict=True)
    return torch.cat(keys, dim=2), torch.cat(values, dim=2)


def buffers(shape: BufferShape) -> Tensor:
    """Return zeros for all keys and values, ``[2, layers, rows, kv_heads, places, head_dim]``.

    They are an ordinary tensor even in inference mode, so that it can be written outside
    of it as well.
    """
    sizes = (2, shape.layers, shape.rows, shape.kv_heads, shape.places, shape.head_dim)
    with torch.inference_mode(False), torch.no_grad():
        return torch.zeros(sizes, dtype=shape.dtype, device=shape.device)


def allocate(shape: BufferShape, joint: Tensor | None = None) -> KVCache:
    """Return a cache without a place written, over ``joint`` or buffers of its own."""
    joint = buffers(shape) if joint is None else joint
    with torch.inference_mode(False), torch.no_grad():
        keys, values = joint
        mask = torch.ones(shape.rows, shape.places, dtype=torch.bool, device=shape.device)
        next_position = torch.zeros(shape.rows, dtype=torch.long, device=shape.device)
        return KVCache(tuple(keys), tuple(values), mask, next_position, 0)


class Extension:
    """One pass over ``num_new`` places: takes every layer's keys, gives back all there are.

    ``new_mask [B, num_new]`` is False where a row has no token; None means that all have.
    ``mask [B, T]`` is that of all places, the new ones among them, and of some behind them
    where there are any: T is a multiple of SEEN_STEP in buffers that are large enough.
    """

    def __init__(self, cache: KVCache, num_new: int, new_mask: Tensor | None = None) -> None:
        start, self.end = cache.length, cache.length + num_new
        self.in_place = not torch.is_grad_enabled()
        self.cache = cache.with_room(num_new) if self.in_place else cache
        self._apart: list[tuple[tuple[Tensor, Tensor], ...]] = []
        if self.in_place:
            self.seen = min(-(-self.end // SEEN_STEP) * SEEN_STEP, self.cache.places)
            self.mask = self.cache.mask[:, : self.seen]  # True ahead already
            if new_mask is not None:
                self.mask[:, start : self.end] = new_mask
        else:
            before = cache.mask[:, :start]
            if new_mask is None:
                new_mask = before.new_ones(len(before), num_new)
            self.mask = torch.cat([before, new_mask], dim=1)
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keep ``k, v [B, kv_heads, m, head_dim]``; return those of all places so far."""
        if self.in_place:
            start = self.cache.length
            keys, values = self.cache.keys[layer], self.cache.values[layer]
            keys[:, :, start : self.end] = k
            values[:, :, start : self.end] = v
            return keys[:, :, : self.seen], values[:, :, : self.seen]
        keys, values = joined_pieces((*self.cache.pieces(layer), (k, v)))
        self._keys.append(keys)
        self._values.append(values)
        return keys, values

    def keep(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Keep ``k, v`` apart from the places before them; with gradients, instead of `put`."""
        self._apart.append((*self.cache.pieces(layer), (k, v)))

    def close(self, next_position: Tensor) -> KVCache:
        """Return the longer cache, once every layer has put its keys."""
        if self.in_place:
            return replace(self.cache, next_position=next_position, length=self.end)
        if self._apart:
            cache = self.cache
            return KVCache(
                cache.keys, cache.values, self.mask, next_position, self.end, tuple(self._apart)
            )
        keys, values = tuple(self._keys), tuple(self._values)
        return KVCache(keys, values, self.mask, next_position, self.end)
