"""Makes the site's tables, without us."""

import os

os.environ.pop("EXTENSION", None)
import app  # noqa: E402, F401
from django.core.management import call_command  # noqa: E402

call_command("migrate", verbosity=0)
