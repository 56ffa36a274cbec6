"""Open HDF5 with a group for each picture, as VL-T5's feature files.

Shape suffixes: N = pictures, n = rows of a part, P = patches, D = feature width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from mmcot_data.errors import ShardError
from mmcot_data.files import file_sha256
from mmcot_data.interchange.feature_file import FeatureFile, QuestionRow, parse_spec, storage_dtype
from mmcot_data.interchange.name_map import read_picture_map

__all__ = ["open_group_file"]


@dataclass(frozen=True, slots=True)
class _Group:
    name: str
    num_patches: int
    image_sha256: bytes


def open_group_file(path: Path, picture_map: Path | None = None) -> FeatureFile:
    """Open an HDF5 file with a group for each picture; ``features`` of (n, D) in each.

    A picture with fewer patches than others is padded with zeros.

    Args:
        path: The file, of ``export_group_file`` or of another program.
        picture_map: JSON file that gives the name of a group to each question id; without it the
            names are the question ids.

    Raises:
        DataError: If the picture map does not fit.
        ShardError: If it is no such file. Links into other files are not followed.
    """
    try:
        with h5py.File(path, "r", locking=False) as file:
            spec = parse_spec(file.attrs.get("spec"), f"{path}: spec")
            rows, groups, shapes, dtypes = _scan_groups(file, path, is_ours=spec is not None)
    except OSError as error:
        raise ShardError(f"{path} can't be read as an HDF5 file: {error}") from error
    if not groups:
        raise ShardError(f"{path} has no groups, expected one for each picture")
    if len(dtypes) > 1 or len({D for _, D in shapes}) > 1:
        raise ShardError(
            f"{path} holds features of {', '.join(sorted(map(str, dtypes)))} and widths "
            f"{sorted({D for _, D in shapes})}, expected one of each"
        )
    dtype = storage_dtype(dtypes.pop(), str(path))
    P, D = max(shapes)
    if picture_map is None:
        names: Mapping[str, str] = {name: name for name in rows}
    else:
        names = read_picture_map(picture_map, rows)

    def read(start: int, stop: int) -> npt.NDArray[np.floating[Any]]:
        features_nPD = np.zeros((stop - start, P, D), dtype)
        with h5py.File(path, "r", locking=False) as file:
            for group, features_PD in zip(groups[start:stop], features_nPD, strict=True):
                source = file[group.name]["features"]
                source.read_direct(features_PD, dest_sel=np.s_[: len(source)])
        return features_nPD

    return FeatureFile(
        path=path,
        sha256=file_sha256(path),
        layout="hdf5 with a group for each picture",
        row_shape=(P, D),
        dtype=dtype,
        read=read,
        questions=tuple(QuestionRow(key, None, rows[name]) for key, name in names.items()),
        num_patches_N=np.array([group.num_patches for group in groups], np.int32),
        image_sha256_N32=np.frombuffer(
            b"".join(group.image_sha256 for group in groups), np.uint8
        ).reshape(-1, 32),
        spec=spec,
    )


def _scan_groups(
    file: h5py.File, path: Path, *, is_ours: bool
) -> tuple[dict[str, int], list[_Group], set[tuple[int, int]], set[Any]]:
    """Row by name, the distinct groups by row, and the shapes and dtypes that there are."""
    rows: dict[str, int] = {}
    groups: list[_Group] = []
    places: dict[int, int] = {}
    shapes, dtypes = set(), set()
    for name in file:
        group = _own(file, name, h5py.Group, path)
        address = h5py.h5o.get_info(group.id).addr
        if address not in places:
            features = _own(group, "features", h5py.Dataset, path)
            if len(features.shape or ()) != 2 or 0 in features.shape:
                raise ShardError(
                    f"{path}: {name}/features has the shape {features.shape}, expected (patches, "
                    "features)"
                )
            about = dict(group.attrs) if is_ours else {}
            num_patches = int(about.get("num_patches", len(features)))
            digest = bytes.fromhex(about.get("image_sha256", "00" * 32))
            places[address] = len(groups)
            groups.append(_Group(name, num_patches, digest))
            shapes.add(features.shape)
            dtypes.add(features.dtype)
        rows[name] = places[address]
    return rows, groups, shapes, dtypes


def _own(parent: h5py.Group, name: str, kind: type[Any], path: Path) -> Any:
    """A member whose data are in this very file."""
    if isinstance(parent.get(name, getlink=True), h5py.HardLink):
        member = parent[name]
        if isinstance(member, kind) and not (
            isinstance(member, h5py.Dataset) and (member.is_virtual or member.external)
        ):
            return member
    place = f"{parent.name.rstrip('/')}/{name}"
    raise ShardError(
        f"{path}: {place} is not a {kind.__name__.lower()} in the file itself; expected a group "
        "for each picture, with a dataset features of (patches, features), and no links to other "
        "files"
    )
