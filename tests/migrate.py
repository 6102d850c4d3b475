"""Write the migration that is missing between the newest one and the tables of `runner.server.database`."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.script import Script

from runner.server.connections import begin, engine_for
from runner.server.database import projects
from runner.server.migrations import bring_up, configuration, known


def main(words: str) -> None:
    with tempfile.TemporaryDirectory() as place:
        engine = engine_for(Path(place) / "server.db")
        bring_up(engine)
        with engine.connect() as connection:
            begin(connection)
            config = configuration(connection)
            config.set_main_option("file_template", "m%%(rev)s_%%(slug)s")
            config.attributes["metadata"] = projects.metadata
            made = command.revision(config, words, autogenerate=True, rev_id=f"{int(known()[-1]) + 1:04}")
    assert isinstance(made, Script)
    path = Path(made.path)
    path.write_text(re.sub(r"\n *# ### .*", "", path.read_text()))
    for words_of_ruff in (["check", "--fix", "--quiet"], ["format", "--quiet"]):
        subprocess.run([sys.executable, "-m", "ruff", *words_of_ruff, path], check=True)
    print(path)


if __name__ == "__main__":
    main(" ".join(sys.argv[1:]))
