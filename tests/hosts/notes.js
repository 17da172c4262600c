// A small notes application in JavaScript: node notes.js better-sqlite3|node:sqlite FOLDER [EXTENSION]
//
// With an extension its database is published, and it has a replica beside it. Its output is what each step returned: the same with
// and without us.
const path = require('path');

const [driver, folder, extension] = process.argv.slice(2);

function open(name) {
  const file = path.join(folder, name);
  if (driver === 'node:sqlite') return new (require('node:sqlite').DatabaseSync)(file, { allowExtension: true });
  return new (require('better-sqlite3'))(file);
}

const say = (step, value) => console.log(step, JSON.stringify(value));
const attempt = (step, run) => {
  try {
    say(step, run());
  } catch (error) {
    say(step, `${error.code}: ${error.message}`);
  }
};

const db = open('app.db');
const all = (sql, ...values) => db.prepare(sql).all(...values);
let replica;
if (extension) {
  db.loadExtension(extension);
  replica = open('replica.db');
  replica.loadExtension(extension);
}

db.exec(`PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON; PRAGMA synchronous = NORMAL;
  CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
  CREATE TABLE note(id INTEGER PRIMARY KEY, author INTEGER NOT NULL REFERENCES author ON DELETE CASCADE, body TEXT,
    stars INTEGER DEFAULT 0 CHECK (stars >= 0), made REAL DEFAULT 1.5);
  CREATE TABLE tag(note INTEGER REFERENCES note ON DELETE CASCADE, word TEXT, PRIMARY KEY(note, word)) WITHOUT ROWID;
  CREATE VIRTUAL TABLE search USING fts5(body, content='note', content_rowid='id');
  CREATE TRIGGER note_added AFTER INSERT ON note BEGIN INSERT INTO search(rowid, body) VALUES (new.id, new.body); END;
  CREATE TRIGGER note_gone AFTER DELETE ON note BEGIN
    INSERT INTO search(search, rowid, body) VALUES ('delete', old.id, old.body); END;`);
const url = extension && all("SELECT logos_publish('dir:' || ?) AS url", path.join(folder, 'channel'))[0].url;

function transaction(run, end = 'COMMIT') {
  db.exec('BEGIN');
  try {
    run();
    db.exec(end);
  } catch (error) {
    db.exec('ROLLBACK');
    throw error;
  }
}

const insert = db.prepare('INSERT INTO author(name) VALUES (?) RETURNING id, name');
say('authors', ['Ada', 'Bo', 'Cy'].map((name) => insert.all(name)));
attempt('twice', () => insert.all('Ada'));
attempt('no author', () => db.prepare('INSERT INTO note(author, body) VALUES (?, ?)').run(99, 'lost'));
attempt('check', () => db.prepare('INSERT INTO note(author, stars) VALUES (1, -1)').run());
const note = db.prepare('INSERT INTO note(author, body) VALUES (?, ?)');
say('run', note.run(1, 'first words'));
transaction(() => {
  for (let i = 0; i < 300; i++) note.run(1 + (i % 3), `note ${i} about ${i % 7 ? 'rain' : 'sun'}`);
});
transaction(() => note.run(1, 'never'), 'ROLLBACK');
attempt('half', () => transaction(() => { note.run(1, 'half'); note.run(99, 'fails'); }));
db.exec(`SAVEPOINT a; INSERT INTO tag VALUES (1, 'x'); SAVEPOINT b; INSERT INTO tag VALUES (2, 'y');
  ROLLBACK TO b; RELEASE b; INSERT INTO tag VALUES (3, 'z'); RELEASE a`);
say('upsert', all("INSERT INTO author(name) VALUES ('Bo') ON CONFLICT DO UPDATE SET name = name || '!' RETURNING *"));
say('changes', db.prepare('UPDATE note SET stars = stars + 1 WHERE id % 2').run());
say('cascade', db.prepare('DELETE FROM author WHERE id = 3').run());
say('found', all("SELECT count(*) AS n FROM search WHERE search MATCH 'sun'"));
const rows = db.prepare('SELECT id FROM note ORDER BY id LIMIT 40').iterate();
say('while reading', rows.next().value);
say('rest', [...rows].length);
db.exec('ALTER TABLE note ADD COLUMN color TEXT DEFAULT \'red\'; CREATE INDEX by_color ON note(color)');
say('think', (() => {
  db.exec('BEGIN');
  const [{ n }] = all('SELECT count(*) AS n FROM note');
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 600);
  const result = db.prepare('UPDATE author SET name = ? WHERE id = 1').run(`Ada has ${n}`);
  db.exec('COMMIT');
  return result;
})());
db.exec('VACUUM; PRAGMA optimize');
say('end', all('SELECT count(*) AS n, sum(stars) AS stars, min(color) AS color FROM note'));

if (extension) {
  all('SELECT logos_flush(20)');
  const [{ n }] = replica.prepare('SELECT count(*) AS n FROM attach_replica(?)').all(url);
  const [status] = all("SELECT state, error, warnings FROM logos_status WHERE role = 'primary'");
  if (!n || status.error) throw new Error(`${n} messages, ${JSON.stringify(status)}`);
  replica.close();
}
if (driver === 'better-sqlite3') {
  db.backup(path.join(folder, 'backup.db')).then(() => db.close());
} else {
  db.close();
}
