"""Change the small tables of an artifact root, wherever it is, as local files."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmcot_data.errors import DataError
from mmcot_data.files import write_bytes
from mmcot_data.shards.object_store import ObjectStore

__all__ = ["working_copy"]


@contextmanager
def working_copy(root: Path | str, names: Sequence[str]) -> Iterator[Path]:
    """A folder with some tables of an artifact root; in the end what was changed goes there.

    A local artifact root is its own working copy. After an error nothing goes anywhere.

    Args:
        root: The artifact root.
        names: The tables that are read or written, as ``captions/vit-gpt2.parquet``.

    Raises:
        ChangedError: If another process changed one of the tables meanwhile.
        ShardError: If the store can't be reached, or refuses.
    """
    if isinstance(root, Path):
        yield root
        return
    store = ObjectStore(root)
    with tempfile.TemporaryDirectory(prefix="mmcot-") as folder:
        # In this order: what changes in between is refused, not overwritten.
        found = {name: store.find(name) for name in names}
        before = store.read(names)
        for name, data in before.items():
            write_bytes(Path(folder, name), data)
        try:
            yield Path(folder)
        except DataError as error:
            raise DataError(str(error).replace(folder, store.url)) from error
        for name in names:
            path = Path(folder, name)
            if path.exists() and (data := path.read_bytes()) != before.get(name):
                there = found[name]
                store.put(name, [data], only_if="*" if there is None else there.etag)
