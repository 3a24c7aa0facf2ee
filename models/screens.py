"""The README's pictures, taken again from the windows as they are: `python -m models.screens [NAME ...]`.

`app.pictures` takes them in a process of its own, with the shipped recording and no screen; here they are put into
assets/ with their rows in the manifest. Names: window, files, settings; all where none is given.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from models.manifest import ASSETS, MANIFEST, Row, update_row

MOST_BYTES = 150_000  # of all pictures together; more goes into every copy of the program
COMMAND = "python -m models.screens"


def put_away(pictures: list[Path], manifest: Path = MANIFEST) -> list[Row]:
    """Move pictures beside the manifest and record them -> their rows. Raises ValueError where they are too large."""
    names = {path.name for path in pictures}
    others = [path for path in manifest.parent.glob("*.png") if path.name not in names]
    taken = sum(path.stat().st_size for path in (*pictures, *others))
    if taken > MOST_BYTES:
        raise ValueError(f"the pictures take {taken} bytes, more than {MOST_BYTES}: app/pictures.py sizes them")
    rows = []
    for path in pictures:
        beside = manifest.parent / f"{path.name}.part"
        beside.write_bytes(path.read_bytes())
        beside.replace(manifest.parent / path.name)
        rows.append(
            update_row(
                name=path.stem,
                file=path.name,
                kind="picture",
                license="MIT",
                data=["assets/demo.ogg"],
                command=COMMAND,
                manifest=manifest,
            )
        )
    return rows


def main(names: list[str]) -> int:
    """Take the pictures and put them away -> exit status; what went wrong was told by who takes them."""
    with tempfile.TemporaryDirectory(prefix="sottovoce-screens-") as folder:
        done = subprocess.run([sys.executable, "-m", "app.pictures", folder, *names], cwd=ASSETS.parent, check=False)
        if done.returncode:
            return done.returncode
        try:
            put_away(sorted(Path(folder).glob("*.png")))
        except ValueError as error:
            print(error, file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
