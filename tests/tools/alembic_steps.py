"""Migrations by Alembic's operations in batch mode, on the database named by the first argument; one after each line read."""

import sys

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

engine = sa.create_engine(f"sqlite:///{sys.argv[1]}")


def create(op):
    op.create_table(
        "account",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(50), nullable=False),
        sa.Column("mail", sa.String(100)),
    )
    op.create_table(
        "entry",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("account_id", sa.Integer, sa.ForeignKey("account.id", name="fk_account")),
        sa.Column("amount", sa.Numeric(10, 2), server_default="0"),
    )


def batch(table, change, **options):
    def step(op):
        with op.batch_alter_table(table, **options) as batch_op:
            change(batch_op)

    return step


STEPS = [
    create,
    batch("account", lambda b: b.add_column(sa.Column("note", sa.Text, server_default="none"))),
    batch("account", lambda b: b.create_unique_constraint("mail_once", ["mail"])),
    batch("account", lambda b: b.alter_column("name", new_column_name="full_name", type_=sa.String(200))),
    batch("entry", lambda b: b.drop_constraint("fk_account", type_="foreignkey"), recreate="always"),
    batch("entry", lambda b: b.alter_column("amount", nullable=False, server_default="1")),
    lambda op: op.create_index("by_amount", "entry", ["amount"]),
    batch("account", lambda b: b.drop_column("note")),
    lambda op: op.rename_table("entry", "posting"),
    lambda op: op.drop_table("posting"),
]

for n, step in enumerate(STEPS):
    if not sys.stdin.readline():
        break
    with engine.begin() as conn:
        step(Operations(MigrationContext.configure(conn)))
        tables = sa.inspect(conn).get_table_names()
        columns = [column["name"] for column in sa.inspect(conn).get_columns("account")]
        name = "name" if "name" in columns else "full_name"
        conn.execute(sa.text(f"INSERT INTO account({name}, mail) VALUES (:n, :m)"), {"n": f"name {n}", "m": f"{n}@x"})
        conn.execute(sa.text(f"UPDATE account SET {name} = {name} || '!' WHERE id % 2 = 0"))
        for table in {"entry", "posting"} & set(tables):
            conn.execute(sa.text(f"INSERT INTO {table}(account_id, amount) VALUES (1, {n}.5), (2, 3)"))
            conn.execute(sa.text(f"DELETE FROM {table} WHERE id = {n}"))
    print(f"step {n}", flush=True)
