"""What the hosts have in common: running them, and comparing what they leave behind. Needs a Python that can load extensions."""

import os
import pathlib
import shutil
import sqlite3
import subprocess

HERE = pathlib.Path(__file__).resolve().parent


class Wrong(Exception):
    """Why a host failed."""


def connect(path, extension=None):
    db = sqlite3.connect(path, isolation_level=None, timeout=20)
    if extension:
        db.enable_load_extension(True)
        db.load_extension(extension)
    return db


def content(path):
    """What a reader sees: objects by their text and rows of each table, without what is ours, modules' own and statistics."""
    db = connect(path)
    tables = [
        (name, kind)
        for name, kind in db.execute("SELECT name, type FROM pragma_table_list WHERE schema = 'main'")
        if not name.startswith(("_logos_", "sqlite_"))
    ]
    shadows = {name for name, kind in tables if kind == "shadow"}
    seen = {
        (kind, name): sql
        for kind, name, table, sql in db.execute("SELECT type, name, tbl_name, sql FROM sqlite_master")
        if not name.startswith(("_logos_", "sqlite_")) and table not in shadows and not table.startswith("_logos_")
    }
    for name, kind in tables:
        if kind in ("table", "virtual"):
            seen["rows", name] = sorted(map(repr, db.execute(f'SELECT * FROM "{name}"')))
    db.close()
    return seen


def must_equal(primary, replica):
    first, second = content(primary), content(replica)
    if not any(rows for (kind, _), rows in first.items() if kind == "rows"):
        raise Wrong("there is nothing in the primary")
    for what in {**first, **second}:
        if first.get(what) != second.get(what):
            raise Wrong(f"{what} differs: {str(first.get(what))[:300]} / {str(second.get(what))[:300]}")


def fresh_replica(folder, extension, name="fresh.db"):
    """A replica made by this Python, from the channel alone."""
    replica = os.path.join(folder, name)
    db = connect(replica, extension)
    list(db.execute("SELECT * FROM attach_replica(?)", ("dir:" + os.path.join(folder, "channel"),)))
    db.close()
    return replica


def must_leave(folder):
    """After a clean end there is no -wal and no -shm, and a plain copy of the file is a backup."""
    left = [name for name in ("app.db-wal", "app.db-shm") if os.path.exists(os.path.join(folder, name))]
    if left:
        raise Wrong(f"left behind after a clean end: {left}")
    copy = os.path.join(folder, "copied.db")
    shutil.copy(os.path.join(folder, "app.db"), copy)
    must_equal(os.path.join(folder, "app.db"), copy)


def run(command, seconds=60, **options):
    """Output of a program that must end by itself, with 0."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, **options)
    except subprocess.TimeoutExpired as late:
        raise Wrong(f"did not end within {seconds} s: {(late.stdout or b'')[-300:]}") from None
    if done.returncode:
        raise Wrong(f"exit code {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout
