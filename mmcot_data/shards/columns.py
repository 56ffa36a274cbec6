"""The columns of a shard, as arrays, and what a container puts around the features.

Shape suffixes: N = images, P = patches, D = feature width.
"""

import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError
from mmcot_data.shards.schema import FeatureSpec

__all__ = ["PAGE_NBYTES", "Frame", "ShardColumns", "row_crc32"]

PAGE_NBYTES = 4096


@dataclass(frozen=True, slots=True)
class ShardColumns:
    """What a shard holds, beside its spec; all arrays are contiguous and little-endian.

    Args:
        features_NPD: In the spec's storage dtype.
        image_sha256_N32: uint8; sha256 of each picture's file, zeros where it is not known.
        num_patches_N: int32; valid patches of each image, the others are padding.
        row_crc32_N: uint32; CRC-32 of each row of ``features_NPD``.
    """

    features_NPD: npt.NDArray[np.floating[Any]]
    image_sha256_N32: npt.NDArray[np.uint8]
    num_patches_N: npt.NDArray[np.int32]
    row_crc32_N: npt.NDArray[np.uint32]

    @classmethod
    def of(
        cls,
        features_NPD: npt.NDArray[np.floating[Any]],
        image_sha256_N32: npt.NDArray[np.uint8],
        num_patches_N: npt.NDArray[np.int32],
        spec: FeatureSpec,
        name: str,
    ) -> "ShardColumns":
        """Check the arrays against the spec and compute the checksums.

        Args:
            features_NPD: Features of at least one image.
            image_sha256_N32: Digests.
            num_patches_N: Between 1 and P.
            spec: Shape and dtype of a row.
            name: Of the shard, for errors.

        Raises:
            ShardError: If a shape, a dtype or a number of patches does not fit.
        """
        N = len(features_NPD)
        expected: list[tuple[str, npt.NDArray[Any], tuple[int, ...], str]] = [
            ("features", features_NPD, (N, *spec.row_shape), spec.dtype),
            ("image_sha256", image_sha256_N32, (N, 32), "uint8"),
            ("num_patches", num_patches_N, (N,), "int32"),
        ]
        for column, array, shape, dtype in expected:
            if N == 0 or array.shape != shape or array.dtype != dtype:
                raise ShardError(
                    f"{name}: {column} is {array.dtype}{array.shape}, expected {dtype}{shape} with "
                    "at least one row"
                )
        if num_patches_N.min() < 1 or num_patches_N.max() > spec.num_patches:
            raise ShardError(
                f"{name}: num_patches is from {num_patches_N.min()} to {num_patches_N.max()}, "
                f"expected 1 to {spec.num_patches}"
            )
        features_NPD = np.ascontiguousarray(features_NPD)
        return cls(
            features_NPD,
            np.ascontiguousarray(image_sha256_N32),
            np.ascontiguousarray(num_patches_N),
            row_crc32(features_NPD),
        )


@dataclass(frozen=True, slots=True)
class Frame:
    """A shard's file without its features: they are written between ``head`` and ``tail``."""

    head: bytes
    tail: bytes
    crc_offset: int
    """Byte of the whole file at which the rows' checksums start."""


def row_crc32(rows: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """CRC-32 (zlib, gzip, PNG: ISO 3309) of each row's bytes; every row must be contiguous."""
    return np.array([zlib.crc32(row.data) for row in rows], np.uint32)
