"""Runs small applications in hosts that people use, each without us and published: `make test-hosts`.

    run.py EXTENSION NODE NEWER_NODE PYTHON [HOST...]

What a host prints must be the same both times, it must end by itself, each replica must be equal, and what it leaves behind must be what
it leaves without us. PYTHON has what requirements.txt names, NODE finds better-sqlite3, NEWER_NODE has node:sqlite.
"""

import concurrent.futures
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

from lab import HERE, Wrong, connect, fresh_replica, must_equal, must_leave, run

EXTENSION, NODE, NEWER_NODE, PYTHON = sys.argv[1:5]


def notes(*command):
    """notes.js or notes.py: the host has a replica of its own, a fresh one is made by this Python."""

    def host(folder):
        outputs = []
        for name, extension in (("plain", []), ("published", [EXTENSION])):
            place = os.path.join(folder, name)
            os.mkdir(place)
            outputs.append(run([*command, place, *extension]))
        if outputs[0] != outputs[1]:
            lines = [pair for pair in zip(*(text.splitlines() for text in outputs)) if pair[0] != pair[1]]
            raise Wrong(f"prints something else: {lines[:3]}")
        must_leave(place)
        must_equal(os.path.join(place, "app.db"), os.path.join(place, "replica.db"))
        must_equal(os.path.join(place, "app.db"), fresh_replica(place, EXTENSION))
        return f"{len(outputs[0].splitlines())} steps"

    return host


def get(port, what):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{what}", timeout=60) as answer:
        return answer.read().decode()


def site(folder, port, extension):
    """Requests to two workers: one after the other that think within a transaction, with a worker killed in between, then many at once.
    The count of users at the end."""
    environment = {**os.environ, "APP": folder, **({"EXTENSION": extension} if extension else {})}
    run([PYTHON, "migrate.py"], cwd=HERE / "site", env=environment)
    command = [PYTHON, "-m", "gunicorn", "--workers", "2", "--bind", f"127.0.0.1:{port}", "--log-level", "warning", "app:application"]
    with open(os.path.join(folder, "gunicorn.log"), "w+") as log:
        server = subprocess.Popen(command, cwd=HERE / "site", env=environment, stdout=log, stderr=log)
        try:
            until = time.monotonic() + 20
            while True:
                try:
                    workers = {get(port, "think/0")}
                    break
                except OSError:
                    if time.monotonic() > until:
                        raise
                    time.sleep(0.1)
            for turn, pause in enumerate([0, 0.02, 0.2] * 8):
                workers.add(get(port, f"think/{pause}"))
                if turn == 12:
                    os.kill(int(min(workers)), signal.SIGKILL)  # gunicorn starts another one
            with concurrent.futures.ThreadPoolExecutor(4) as clients:
                workers.update(clients.map(lambda n: get(port, f"write/name{n % 40}"), range(200)))
            if len(workers) < 2:
                raise Wrong(f"{len(workers)} workers answered")
            users = get(port, "users")
            server.terminate()
            if server.wait(20):
                raise Wrong(f"gunicorn ended with {server.returncode}")
            return users
        except (OSError, subprocess.TimeoutExpired) as error:
            log.seek(0)
            raise Wrong(f"{error}: {log.read()[-700:]}") from None
        finally:
            server.kill()
            server.wait()


def django(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    users = []
    for name, extension in (("plain", None), ("published", EXTENSION)):
        place = os.path.join(folder, name)
        os.mkdir(place)
        users.append(site(place, port, extension))
    if users[0] != users[1]:
        raise Wrong(f"{users[0]} users without us, {users[1]} published")
    must_leave(place)
    # What the last worker had no time for goes out when the application starts again.
    again = connect(os.path.join(place, "app.db"), EXTENSION)
    again.execute("SELECT logos_publish(?)", ("dir:" + os.path.join(place, "channel"),)).fetchall()
    again.execute("SELECT logos_flush(20)").fetchall()
    again.close()
    must_equal(os.path.join(place, "app.db"), fresh_replica(place, EXTENSION))
    return f"{users[0]} users"


MODELS = """import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase
class Base(DeclarativeBase): pass
class Item(Base):
    __tablename__ = "item"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String(50))
"""
LATER = """    price = sa.Column(sa.Integer, server_default="3")
class Shop(Base):
    __tablename__ = "shop"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.String(50), index=True)
"""


def alembic(folder):
    """Revisions that Alembic makes by comparing models with a published database, with the README's filter: else it would drop our tables."""
    tool = lambda *arguments: run([PYTHON, "-m", "alembic", *arguments], cwd=folder)  # noqa: E731
    models, database = pathlib.Path(folder, "models.py"), os.path.join(folder, "app.db")
    tool("init", "versions")
    settings = pathlib.Path(folder, "alembic.ini")
    settings.write_text(re.sub("sqlalchemy.url = .*", "sqlalchemy.url = sqlite:///app.db", settings.read_text()))
    environment = pathlib.Path(folder, "versions", "env.py")
    metadata = 'import sys; sys.path.insert(0, ".")\nimport models\ntarget_metadata = models.Base.metadata'
    names = 'target_metadata=target_metadata, include_name=lambda name, kind, parents: not (name or "").startswith("_logos_")'
    text = environment.read_text().replace("target_metadata=target_metadata", names)
    environment.write_text(text.replace("target_metadata = None", metadata))

    def revise(name, text):
        models.write_text(text)
        tool("revision", "--autogenerate", "-m", name)
        tool("upgrade", "head")

    def write(sql):
        """The application, in a process of its own."""
        run([sys.executable, "-c", f"import sqlite3; db = sqlite3.connect('app.db')\nwith db: db.execute({sql!r})"], cwd=folder)

    revise("one", MODELS)
    publisher = connect(database, EXTENSION)
    publisher.execute("SELECT logos_publish(?)", ("dir:" + os.path.join(folder, "channel"),)).fetchall()
    steps = 0

    def compare():
        nonlocal steps
        steps += 1
        write(f"INSERT INTO item(name) VALUES ('lamp {steps}')")
        write("UPDATE item SET name = name || '.' WHERE id = 1")
        publisher.execute("SELECT logos_flush(20)").fetchall()
        must_equal(database, fresh_replica(folder, EXTENSION, f"replica{steps}.db"))

    compare()
    revise("two", MODELS + LATER)
    if "_logos_" in "".join(path.read_text() for path in pathlib.Path(folder, "versions", "versions").glob("*.py")):
        raise Wrong("a revision names our tables")
    compare()
    tool("downgrade", "-1")
    compare()
    tool("upgrade", "head")
    compare()
    publisher.close()
    must_leave(folder)
    return f"{steps} comparisons"


HOSTS = {
    "better-sqlite3": notes(NODE, str(HERE / "notes.js"), "better-sqlite3"),
    "node:sqlite": notes(NEWER_NODE, "--no-warnings", str(HERE / "notes.js"), "node:sqlite"),
    "apsw": notes(PYTHON, str(HERE / "notes.py"), "apsw"),
    "pysqlite3": notes(PYTHON, str(HERE / "notes.py"), "pysqlite3"),
    "sqlite3": notes(sys.executable, str(HERE / "notes.py"), "sqlite3"),
    "django": django,
    "alembic": alembic,
}


def main():
    failed = 0
    for name, host in HOSTS.items():
        if len(sys.argv) > 5 and name not in sys.argv[5:]:
            continue
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="logos-host-") as folder:
            try:
                result = "ok: " + host(folder)
            except Wrong as wrong:
                result = f"FAILED: {wrong}"
                failed += 1
        print(f"{name:14} {time.monotonic() - begun:5.1f} s  {result}", flush=True)
    sys.exit(1 if failed else 0)


main()
