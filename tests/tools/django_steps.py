"""Migrations by Django itself, on the database named by the first argument; one step after each line read.

Django never loads the extension: it is a writer in a process of its own, as it is.
"""

import sys

import django
from django.conf import settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1]}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
django.setup()

from django.db import connection, migrations, models  # noqa: E402
from django.db.migrations.state import ProjectState  # noqa: E402

INITIAL = [
    migrations.CreateModel(
        "Author",
        [
            ("id", models.BigAutoField(primary_key=True)),
            ("name", models.CharField(max_length=100)),
            ("mail", models.EmailField(unique=True)),
        ],
    ),
    migrations.CreateModel(
        "Book",
        [
            ("id", models.BigAutoField(primary_key=True)),
            ("title", models.CharField(max_length=200)),
            ("author", models.ForeignKey("shop.Author", models.CASCADE)),
            ("co_authors", models.ManyToManyField("shop.Author", related_name="+")),
        ],
    ),
]
LATER = [
    migrations.AddField("Author", "born", models.IntegerField(default=1900)),
    migrations.AlterField("Author", "name", models.CharField(max_length=300, null=True)),
    migrations.RenameField("Book", "title", "heading"),
    migrations.AddIndex("Book", models.Index(fields=["heading"], name="heading_index")),
    migrations.AddConstraint("Author", models.UniqueConstraint(fields=["name", "born"], name="name_and_born")),
    migrations.AlterField("Book", "author", models.ForeignKey("shop.Author", models.SET_NULL, null=True)),
    migrations.RemoveConstraint("Author", "name_and_born"),
    migrations.RenameModel("Book", "Volume"),
    migrations.AlterModelTable("Author", "writers"),
    migrations.RemoveField("Author", "born"),
    migrations.RemoveField("Volume", "co_authors"),
    migrations.DeleteModel("Volume"),
]


def migrate(operations, state):
    """Applies them as one migration of the app `shop`, in Django's own schema editor."""
    migration = migrations.Migration("step", "shop")
    migration.operations = operations
    with connection.schema_editor(atomic=True) as editor:
        return migration.apply(state, editor)


def write(state, n):
    """Inserts, updates and deletes through the ORM, as far as the models are there."""
    models_by_name = {model.__name__: model for model in state.apps.get_models()}
    author = models_by_name["Author"]
    author.objects.create(name=f"author {n}", mail=f"{n}@example.org")
    author.objects.filter(mail__contains="1").update(name=f"renamed {n}")
    for book in [model for name, model in models_by_name.items() if name in ("Book", "Volume")]:
        text = "title" if hasattr(book, "title") else "heading"
        row = book.objects.create(**{text: f"book {n}"}, author=author.objects.last())
        if hasattr(book, "co_authors"):
            row.co_authors.add(author.objects.first())
        book.objects.filter(id=n - 3).delete()


state = ProjectState()
for n, operation in enumerate([INITIAL] + [[operation] for operation in LATER]):
    if not sys.stdin.readline():
        break
    state = migrate(operation, state)
    write(state, n)
    print(type(operation[0]).__name__, flush=True)
