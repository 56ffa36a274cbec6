"""``mmcot-data`` with another catalogue: ``python -m benchmarks.download_command FILE ARGUMENTS``.

FILE is JSON with the counts of the stand-in and the digest of its train file.
"""

import json
import sys
from pathlib import Path

from benchmarks.download_stand_in import patched_catalogue
from mmcot_data.cli import main
from mmcot_data.downloads import run

__all__: list[str] = []

if __name__ == "__main__":
    published = json.loads(Path(sys.argv[1]).read_bytes())
    run.CATALOGUE = patched_catalogue(published["counts"], published["train_sha256"])
    sys.exit(main(sys.argv[2:]))
