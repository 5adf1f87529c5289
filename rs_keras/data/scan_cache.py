"""What scans have found, a file for each dataset in the user's cache directory."""

import hashlib
import json
import os
import time

from absl import logging

from rs_keras.data import folder


class Cache:
    """Verdicts about the files of one directory; saved when a `with` block ends.

    A file that is damaged, or was written by other rules, counts as empty. Where it
    cannot be written there is one warning. Two processes may use it at once: the last
    one to save wins, and each file is whole.
    """

    def __init__(self, directory, rules):
        self._root = os.path.realpath(directory)
        self._start = folder.start_of_names(directory)
        self._rules = rules
        name = hashlib.sha256(os.fsencode(self._root)).hexdigest()[:32]
        home = cache_home()
        self.path = home and os.path.join(home, "rs_keras", "scans", f"{name}.json")
        self._files = self._load()
        self._changed = False
        self._saved = time.perf_counter()
        self._cost = 0.0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.save()

    def get(self, path, state):
        """(known, reason) of a file in this state, as of `os.stat`."""
        found = self._files.get(path[self._start :])
        if not (isinstance(found, list) and len(found) == 3):
            return False, None
        known = found[:2] == [state.st_size, state.st_mtime_ns]
        return known, found[2]

    def put(self, path, state, reason):
        found = [state.st_size, state.st_mtime_ns, reason]
        self._files[path[self._start :]] = found
        self._changed = True

    def save_sometimes(self, seconds):
        """Saves what was found if that is worth the time that it takes."""
        if time.perf_counter() - self._saved > max(seconds, 20 * self._cost):
            self.save()

    def save(self):
        if not self._changed or self.path is None:
            return
        start = time.perf_counter()
        value = {"rules": self._rules, "root": self._root, "files": self._files}
        temporary = f"{self.path}.{os.getpid()}.tmp"
        try:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)
            with open(temporary, "w", encoding="ascii") as file:
                file.write(json.dumps(value))
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.path)
        except OSError as error:
            logging.warning(
                "What the scan found cannot be kept, the next run scans again: %s.",
                error,
            )
            self.path = None
        self._changed = False
        self._saved = time.perf_counter()
        self._cost = self._saved - start

    def _load(self):
        try:
            with open(self.path or os.devnull, encoding="ascii") as file:
                value = json.load(file)
            fits = value["rules"] == self._rules and value["root"] == self._root
            return dict(value["files"]) if fits else {}
        # Not there, unreadable, no JSON, or JSON of something else.
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return {}


def cache_home():
    """$XDG_CACHE_HOME or ~/.cache; None where there is no home directory."""
    path = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(path):
        # A relative path is invalid, says the XDG Base Directory Specification.
        path = os.path.join(os.path.expanduser("~"), ".cache")
    return path if os.path.isabs(path) else None
