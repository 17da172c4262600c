"""A Django site of one file, for two gunicorn workers. APP is its folder; EXTENSION, when set, is loaded into every connection
and each worker publishes: the one that comes second stands by."""

import os
import time

import django
from django.conf import settings

folder, extension = os.environ["APP"], os.environ.get("EXTENSION")
settings.configure(
    SECRET_KEY="only a test",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    LOGGING={"version": 1, "handlers": {"log": {"class": "logging.StreamHandler"}}, "loggers": {"django.request": {"handlers": ["log"]}}},
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": os.path.join(folder, "app.db"),
            "CONN_MAX_AGE": None,
            "OPTIONS": {"timeout": 20, "init_command": "PRAGMA journal_mode = WAL"},
        }
    },
)

from django.db.backends.signals import connection_created  # noqa: E402


def load(connection, **_):
    connection.connection.enable_load_extension(True)
    connection.connection.load_extension(extension)


if extension:
    connection_created.connect(load)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.db.models import F  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

published = []


def publish():
    """The first request of a worker, as an application would do it at its start."""
    if extension and not published:
        with connection.cursor() as cursor:
            cursor.execute("SELECT logos_publish(%s, %s)", ["dir:" + os.path.join(folder, "channel"), '{"standby": true}'])
            published.append(cursor.fetchone()[0])


def think(request, seconds):
    """Reads, thinks and writes in one deferred transaction, and saves a session."""
    publish()
    with transaction.atomic():
        count = User.objects.count()
        time.sleep(float(seconds))
        User.objects.create(username=f"user {count}", email=f"{os.getpid()}@example.org")
    request.session["count"] = count
    return HttpResponse(f"{os.getpid()}")


def write(request, name):
    """Writes without a transaction of its own, from several requests at the same time."""
    publish()
    User.objects.get_or_create(username=name)
    User.objects.filter(username=name).update(last_name=F("last_name") + name)
    return HttpResponse(f"{os.getpid()}")


def users(request):
    return HttpResponse(f"{User.objects.count()}")


urlpatterns = [path("think/<seconds>", think), path("write/<name>", write), path("users", users)]
application = get_wsgi_application()
