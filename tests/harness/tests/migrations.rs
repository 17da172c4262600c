//! Goal: migrations as real tools write them arrive without a call to us (issue 3, "done when" 3; T12).
//!
//! Method: the statements that Django, Alembic, Rails, Prisma and a person at the shell send, in their transactions and with
//! their PRAGMAs, run on a live primary with data, while a follower is attached; by the publishing connection, by a second
//! one, and by a shell without the extension. Writes come before, between and after.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use harness::pair::{flush, try_attach};
use harness::{assert_equal, open, Pair, Shell, Sql};

const DATA: &str = "
    WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c WHERE i < 300)
        INSERT INTO author(id, name, mail) SELECT i, 'name ' || i, 'mail' || i || '@x' FROM c;
    INSERT INTO book(id, title, author_id) SELECT id, 'title ' || id, 1 + id % 300 FROM author;";

const SCHEMA: &str = r#"
    CREATE TABLE "author" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "name" varchar(100) NOT NULL, "mail" varchar(254) NOT NULL UNIQUE);
    CREATE TABLE "book" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "title" varchar(200) NOT NULL,
        "author_id" bigint NOT NULL REFERENCES "author" ("id") DEFERRABLE INITIALLY DEFERRED);
    CREATE INDEX "book_author_id_idx" ON "book" ("author_id");"#;

const AFTER: &str = "
    UPDATE author SET name = name || '!' WHERE id % 5 = 0; DELETE FROM book WHERE id % 7 = 0; DELETE FROM author WHERE id = 299;
    INSERT INTO author(name, mail) VALUES ('new', 'new@x'); UPDATE book SET title = 'last' WHERE id = 3;";

/// Runs the migration by each kind of writer. `after` are writes for the schema that it leaves.
fn migrates(setup: &str, migration: &str, after: &str) {
    for writer in ["publisher", "another connection", "shell"] {
        for quick in [true, false] {
            eprintln!("by {writer}, all in one message: {quick}");
            let options = if quick { r#"{"batch_ms":60000}"# } else { "{}" };
            let mut pair = Pair::with_options(&format!("{SCHEMA}{setup}"), options);
            pair.run(DATA);
            let replica = pair.check();
            try_attach(&replica, &pair.url, Some(r#"{"follow":true}"#)).unwrap();
            pair.run("UPDATE author SET name = 'before' WHERE id = 1; DELETE FROM book WHERE id = 299 OR author_id = 299; DELETE FROM author WHERE id = 299");
            match writer {
                "publisher" => pair.run(migration),
                "another connection" => open(&pair.primary_path()).run(migration),
                _ => assert_eq!(Shell::run(&pair.primary_path(), migration).err, ""),
            }
            pair.run(after);
            let position = flush(&pair.primary);
            assert_eq!(replica.text(&format!("SELECT logos_wait('{position}', 60)")), "1");
            assert_equal(&pair.primary, &replica);
            replica.run("SELECT logos_stop()");
            pair.check_fresh();
        }
    }
}

/// Django's SQLite schema editor: `new__` table, copy, drop, rename; constraints off around the transaction.
#[test]
fn djangos_table_rebuild_arrives() {
    migrates(
        "",
        r#"PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON; BEGIN;
           CREATE TABLE "new__author" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "mail" varchar(254) NOT NULL UNIQUE, "name" varchar(200) NULL, "age" integer NOT NULL CHECK ("age" >= 0));
           INSERT INTO "new__author" ("id", "mail", "name", "age") SELECT "id", "mail", "name", 0 FROM "author";
           DROP TABLE "author"; ALTER TABLE "new__author" RENAME TO "author";
           CREATE TABLE "new__book" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "title" varchar(200) NOT NULL, "author_id" bigint NULL REFERENCES "author" ("id") DEFERRABLE INITIALLY DEFERRED);
           INSERT INTO "new__book" ("id", "title", "author_id") SELECT "id", "title", "author_id" FROM "book";
           DROP TABLE "book"; ALTER TABLE "new__book" RENAME TO "book"; CREATE INDEX "book_author_id_8ba6b3a1" ON "book" ("author_id");
           CREATE TABLE "django_migrations" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "app" varchar(255) NOT NULL, "name" varchar(255) NOT NULL, "applied" datetime NOT NULL);
           INSERT INTO "django_migrations" ("app", "name", "applied") VALUES ('shop', '0002_age', '2026-01-01 00:00:00');
           PRAGMA foreign_key_check; COMMIT; PRAGMA legacy_alter_table = OFF; PRAGMA foreign_keys = ON;"#,
        &AFTER.replace(
            "author(name, mail) VALUES ('new', 'new@x')",
            "author(name, mail, age) VALUES ('new', 'new@x', 3)",
        ),
    );
}

/// Alembic's batch mode: `_alembic_tmp_`, in the transaction that also moves the version on.
#[test]
fn alembics_batch_mode_arrives() {
    migrates(
        "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num));
         INSERT INTO alembic_version VALUES ('1975ea83b712');",
        r#"BEGIN;
           CREATE TABLE _alembic_tmp_book (id INTEGER NOT NULL, title VARCHAR(200) NOT NULL, author_id BIGINT NOT NULL, pages INTEGER DEFAULT '0' NOT NULL,
               PRIMARY KEY (id), FOREIGN KEY(author_id) REFERENCES author (id), CONSTRAINT uq_book UNIQUE (title, author_id));
           INSERT INTO _alembic_tmp_book (id, title, author_id) SELECT book.id, book.title, book.author_id FROM book;
           DROP TABLE book; ALTER TABLE _alembic_tmp_book RENAME TO book;
           CREATE INDEX ix_book_author_id ON book (author_id); CREATE UNIQUE INDEX ix_author_name ON author (name);
           UPDATE alembic_version SET version_num='ae1027a6acf' WHERE alembic_version.version_num = '1975ea83b712'; COMMIT;"#,
        AFTER,
    );
}

/// Rails' `alter_table`: the table goes to a temporary table `a…` and back, row by row or by INSERT … SELECT.
#[test]
fn railss_copy_and_rename_arrives() {
    migrates(
        "",
        r#"PRAGMA foreign_keys; PRAGMA defer_foreign_keys; BEGIN IMMEDIATE TRANSACTION; PRAGMA defer_foreign_keys = ON; PRAGMA foreign_keys = OFF;
           CREATE TEMPORARY TABLE "abook" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "title" varchar(200) NOT NULL, "author_id" bigint NOT NULL);
           CREATE INDEX "temp"."index_abook_on_author_id" ON "abook" ("author_id");
           INSERT INTO "abook" ("id","title","author_id") SELECT "id","title","author_id" FROM "book";
           DROP TABLE "book";
           CREATE TABLE "book" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "title" varchar(300) DEFAULT 'untitled', "author_id" bigint NOT NULL, CONSTRAINT "fk_rails_1" FOREIGN KEY ("author_id") REFERENCES "author" ("id"));
           CREATE INDEX "index_book_on_author_id" ON "book" ("author_id");
           INSERT INTO "book" ("id","title","author_id") SELECT "id","title","author_id" FROM "abook";
           DROP TABLE "abook";
           PRAGMA defer_foreign_keys = 0; PRAGMA foreign_keys = 1;
           CREATE TABLE IF NOT EXISTS "schema_migrations" ("version" varchar NOT NULL PRIMARY KEY); INSERT INTO "schema_migrations" ("version") VALUES ('20260101000000');
           COMMIT TRANSACTION;
           BEGIN IMMEDIATE TRANSACTION; ALTER TABLE "author" RENAME TO "writer"; ALTER TABLE "writer" RENAME TO "author"; COMMIT TRANSACTION;"#,
        AFTER,
    );
}

/// Prisma's RedefineTables.
#[test]
fn prismas_redefine_tables_arrives() {
    migrates(
        "",
        r#"-- RedefineTables
           PRAGMA defer_foreign_keys=ON; PRAGMA foreign_keys=OFF;
           CREATE TABLE "new_author" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "name" TEXT, "mail" TEXT NOT NULL, "createdAt" DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP);
           INSERT INTO "new_author" ("id", "mail", "name") SELECT "id", "mail", "name" FROM "author";
           DROP TABLE "author";
           ALTER TABLE "new_author" RENAME TO "author";
           CREATE UNIQUE INDEX "author_mail_key" ON "author"("mail");
           CREATE TABLE "new_book" ("id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, "title" TEXT NOT NULL, "author_id" INTEGER NOT NULL,
               CONSTRAINT "book_author_id_fkey" FOREIGN KEY ("author_id") REFERENCES "author" ("id") ON DELETE RESTRICT ON UPDATE CASCADE);
           INSERT INTO "new_book" ("author_id", "id", "title") SELECT "author_id", "id", "title" FROM "book";
           DROP TABLE "book";
           ALTER TABLE "new_book" RENAME TO "book";
           PRAGMA foreign_keys=ON; PRAGMA defer_foreign_keys=OFF;"#,
        AFTER,
    );
}

#[test]
fn plain_drop_column_arrives() {
    migrates(
        "ALTER TABLE author ADD COLUMN extra TEXT DEFAULT 'x'; ALTER TABLE author ADD COLUMN more; CREATE TRIGGER t AFTER INSERT ON book BEGIN UPDATE author SET name = 'wrote' WHERE id = NEW.author_id; END;",
        r#"ALTER TABLE "author" DROP COLUMN "extra"; BEGIN; UPDATE author SET more = 5 WHERE id < 10; ALTER TABLE author DROP COLUMN more;
           ALTER TABLE author ADD COLUMN more DEFAULT 7; UPDATE author SET more = 8 WHERE id = 20; COMMIT;
           DROP INDEX book_author_id_idx; ALTER TABLE book RENAME COLUMN title TO name; ALTER TABLE book RENAME COLUMN name TO title;"#,
        &format!("{AFTER} INSERT INTO book(title, author_id) VALUES ('by trigger', 2); UPDATE author SET more = 9 WHERE id = 21;"),
    );
}

/// The recipe of SQLite's own documentation, with views and triggers, and the schema's text edited in place.
#[test]
fn sqlites_own_recipes_arrive() {
    migrates(
        "CREATE VIEW titles AS SELECT title, name FROM book JOIN author ON author.id = author_id;",
        r#"PRAGMA foreign_keys = OFF; BEGIN; DROP VIEW titles;
           CREATE TABLE new_book(id INTEGER PRIMARY KEY, title TEXT COLLATE NOCASE, author_id INTEGER REFERENCES author(id), UNIQUE(title));
           INSERT OR IGNORE INTO new_book SELECT id, title, author_id FROM book; DROP TABLE book; ALTER TABLE new_book RENAME TO book;
           CREATE VIEW titles AS SELECT title, name FROM book JOIN author ON author.id = author_id;
           PRAGMA foreign_key_check; COMMIT; PRAGMA foreign_keys = ON; PRAGMA user_version = 2;"#,
        AFTER,
    );
}

/// Many migrations in a row, as at the first start of an application that is new here.
#[test]
fn a_hundred_migrations_in_a_row_arrive() {
    let mut script = String::new();
    for n in 0..100 {
        script += &match n % 5 {
            0 => format!("BEGIN; CREATE TABLE m{n}(id INTEGER PRIMARY KEY, a); INSERT INTO m{n} VALUES (1, {n}); PRAGMA user_version = {n}; COMMIT;"),
            1 => format!("ALTER TABLE m{} ADD COLUMN b DEFAULT {n}; UPDATE m{0} SET b = 1 WHERE id = 5;", n - 1),
            2 => format!("CREATE INDEX i{n} ON m{}(b); INSERT INTO m{0}(a) VALUES ({n});", n - 2),
            3 => format!("ALTER TABLE m{} RENAME TO r{n}; UPDATE r{n} SET a = a + 1;", n - 3),
            _ => format!("ALTER TABLE author ADD COLUMN c{n} DEFAULT 'x'; UPDATE author SET c{n} = id WHERE id < 4;"),
        };
    }
    migrates("", &script, AFTER);
}
