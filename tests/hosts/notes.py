"""A small notes application in Python: notes.py sqlite3|pysqlite3|apsw FOLDER [EXTENSION]

With an extension its database is published, and it has a replica beside it. Its output is what each step returned: the same with
and without us.
"""

import importlib
import os
import sys
import threading
import time

driver, folder, *extension = sys.argv[1:]
module = importlib.import_module(driver)


def connect(name):
    path = os.path.join(folder, name)
    if driver == "apsw":
        db = module.Connection(path)
        db.set_busy_timeout(5000)
    else:
        db = module.connect(path, isolation_level=None)
    if extension:
        db.enable_load_extension(True)
        db.load_extension(extension[0])
    return db


def say(step, value):
    print(step, value)


def attempt(step, run):
    try:
        say(step, run())
    except module.Error as error:
        say(step, f"{type(error).__name__}: {error}")


def statements(db, text):
    for statement in text.split(";;"):
        db.execute(statement)


def rows(sql, *values):
    return list(db.execute(sql, values))


db = connect("app.db")
replica = connect("replica.db") if extension else None
statements(
    db,
    """PRAGMA journal_mode = WAL;; PRAGMA foreign_keys = ON;;
    CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, picture BLOB);;
    CREATE TABLE note(id INTEGER PRIMARY KEY, author INTEGER NOT NULL REFERENCES author ON DELETE CASCADE, body TEXT,
      stars INTEGER DEFAULT 0 CHECK (stars >= 0));;
    CREATE TABLE tag(note INTEGER REFERENCES note ON DELETE CASCADE, word TEXT, PRIMARY KEY(note, word)) WITHOUT ROWID;;
    CREATE TABLE event(what TEXT);;
    CREATE TRIGGER note_gone AFTER DELETE ON note BEGIN INSERT INTO event VALUES ('gone ' || old.id); END""",
)
if driver == "apsw":
    ended = []
    db.set_commit_hook(lambda: bool(ended.append("commit")))
    db.set_rollback_hook(lambda: ended.append("rollback"))
    db.create_scalar_function("shout", lambda text: text.upper() + "!", 1)
else:
    db.create_function("shout", 1, lambda text: text.upper() + "!")
    db.set_progress_handler(lambda: 0, 1000)
url = rows("SELECT logos_publish('dir:' || ?)", os.path.join(folder, "channel"))[0][0] if extension else None

say("authors", [rows("INSERT INTO author(name) VALUES (shout(?)) RETURNING *", name) for name in ("ada", "bo", "cy")])
attempt("twice", lambda: rows("INSERT INTO author(name) VALUES ('ADA!')"))
attempt("no author", lambda: rows("INSERT INTO note(author, body) VALUES (99, 'lost')"))
attempt("check", lambda: rows("INSERT INTO note(author, stars) VALUES (1, -1)"))
with db:
    rows("BEGIN") if driver != "apsw" else None
    db.executemany("INSERT INTO note(author, body) VALUES (?, ?)", [(1 + i % 3, f"note {i}") for i in range(300)])
try:
    with db:
        rows("BEGIN") if driver != "apsw" else None
        rows("INSERT INTO note(author, body) VALUES (1, 'half')")
        rows("INSERT INTO note(author, body) VALUES (99, 'fails')")
except module.Error as error:
    say("half", error)
statements(db, "SAVEPOINT a;; INSERT INTO tag VALUES (1, 'x');; SAVEPOINT b;; INSERT INTO tag VALUES (2, 'y');; ROLLBACK TO b;; RELEASE a")
say("upsert", rows("INSERT INTO author(name) VALUES ('BO!') ON CONFLICT DO UPDATE SET name = name || '!' RETURNING *"))
rows("UPDATE note SET stars = stars + 1 WHERE id % 2")
say("changes", rows("SELECT changes()"))
rows("DELETE FROM author WHERE id = 3")
say("events", rows("SELECT count(*), min(what), max(what) FROM event"))
rows("UPDATE author SET picture = zeroblob(20) WHERE id = 1")
cursor = db.execute("SELECT id FROM note ORDER BY id")
first = [next(cursor), next(cursor)]
rows("UPDATE note SET body = body || '.' WHERE id = 2")
say("while reading", (first, len(list(cursor))))
rows("ALTER TABLE note ADD COLUMN color TEXT DEFAULT 'red'")
rows("CREATE INDEX by_color ON note(color)")

# A transaction that reads, thinks and writes, and a thread that has a connection of its own.
for pause in (0, 0.02, 0.3):
    rows("BEGIN")
    count = rows("SELECT count(*) FROM note")[0][0]
    time.sleep(pause)
    rows("UPDATE author SET name = ? WHERE id = 1", f"Ada has {count} after {pause}")
    rows("COMMIT")


def work():
    other = connect("app.db")
    for i in range(50):
        other.execute("INSERT INTO event VALUES (?)", (f"thread {i}",))
    other.close()


thread = threading.Thread(target=work)
thread.start()
thread.join()
backup = connect("backup.db")
if driver == "apsw":
    with backup.backup("main", db, "main") as copying:
        copying.step()
    # SQLite calls a rollback hook too when a statement meets a schema that another connection has changed.
    say("hooks", (ended.count("commit") > 3, ended.count("rollback") > 3))
    db.set_commit_hook(None)
else:
    db.backup(backup)
backup.close()
rows("VACUUM")
say("end", rows("SELECT count(*), sum(stars), min(color) FROM note"))

if extension:
    rows("SELECT logos_flush(20)")
    messages = list(replica.execute("SELECT count(*) FROM attach_replica(?)", (url,)))[0][0]
    status = rows("SELECT state, error, warnings FROM logos_status WHERE role = 'primary'")
    assert messages and not status[0][1], (messages, status)
    replica.close()
db.close()
