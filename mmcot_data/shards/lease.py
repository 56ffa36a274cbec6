"""Who writes, in object storage: a lease is an object that is renewed as long as it is held.

Its age, by the store's clock alone, tells whether its owner lives: one that was not renewed for
``LEASE_SECONDS`` belongs to nobody. It is made, renewed, taken over and given up on conditions, so
that of several processes that want it one gets it.
"""

import json
import logging
import threading
import time
from uuid import uuid4

from mmcot_data.errors import ShardError
from mmcot_data.shards.lock import describe_owner
from mmcot_data.shards.object_store import ChangedError, ObjectStore, StoredObject
from mmcot_data.shards.persistence import StoreError

__all__ = ["Lease", "is_held", "read_owner"]

logger = logging.getLogger(__name__)

LEASE_SECONDS = 60.0
_RENEWALS = 4
"""In the time of a lease, so that some may fail."""
_TOKEN = "mmcot-lease"
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine sleeps, where there is one that does."""


class Lease:
    """A lease that this process holds, until it is given up or lost; use ``take`` to get one."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.taken_over = False
        """Whether its last owner had not given it up: a process that was killed, or lost touch."""
        self._store = store
        self._name = name
        self._token = uuid4().hex
        self._owner = describe_owner()
        self._num_renewals = 0
        self._etag = ""
        self._renewed = 0.0
        self._is_lost = False
        self._writing = threading.Lock()
        self._released = threading.Event()
        self._thread = threading.Thread(
            target=self._keep, name=f"lease {store.url}/{name}", daemon=True
        )

    @classmethod
    def take(cls, store: ObjectStore, name: str) -> "Lease | None":
        """Take a lease; None if another process, or this one, holds it.

        Raises:
            StoreError: If the store can't be reached.
            ShardError: If it refuses.
        """
        lease = cls(store, name)
        try:
            lease._write(only_if="*", patient=True)
        except ChangedError:
            found = store.find(name)
            if found is None or is_held(found):
                return None
            try:
                lease._write(only_if=found.etag, patient=True)
            except ChangedError:
                return None
            lease.taken_over = True
        lease._thread.start()
        return lease

    def check(self) -> None:
        """See that nobody can have taken it over.

        Raises:
            StoreError: If that can't be ruled out.
        """
        age = time.clock_gettime(_CLOCK) - self._renewed
        if self._is_lost or age >= LEASE_SECONDS:
            raise StoreError(
                f"{self._store.url}/{self._name}: the claim of this process was lost, for it could "
                f"not be renewed for {age:.0f} s: this machine was stopped, or cut off from the "
                "store. Run the same command again to continue"
            )

    def conditions_hold(self) -> bool:
        """Whether the store refuses what a condition forbids; not all do."""
        try:
            self._write(only_if="*", patient=True)
        except ChangedError:
            return True
        return False

    def release(self) -> None:
        """Give it up; any thread may."""
        self._released.set()
        self._thread.join()
        if self._is_lost:
            return
        try:
            try:
                self._store.remove(self._name, self._etag)
            except ChangedError:  # by a process that has taken it over, or by a late renewal
                if (found := self._find_own()) is not None:
                    self._store.remove(self._name, found.etag)
        except ShardError as error:
            logger.warning("%s; others wait for %.0f s", error, LEASE_SECONDS)

    def _keep(self) -> None:
        while not self._released.wait(LEASE_SECONDS / _RENEWALS):
            try:
                self._renew()
            except ChangedError:
                self._is_lost = True
                logger.warning("%s/%s was taken over", self._store.url, self._name)
                return
            except ShardError as error:
                logger.warning("%s", error)

    def _renew(self) -> None:
        try:
            self._write(only_if=self._etag)
        except ChangedError:
            if (found := self._find_own()) is None:
                raise
            self._write(only_if=found.etag)

    def _find_own(self) -> StoredObject | None:
        """The object if it is this lease's, by a renewal that came through without its answer."""
        found = self._store.find(self._name)
        is_own = found is not None and found.metadata.get(_TOKEN) == self._token
        return found if is_own else None

    def _write(self, only_if: str, *, patient: bool = False) -> None:
        """Put the object; its bytes, and so its ETag, are never those of an earlier one."""
        with self._writing:
            started = time.clock_gettime(_CLOCK)
            self._num_renewals += 1
            content = {"owner": self._owner, "lease": self._token, "written": self._num_renewals}
            self._etag = self._store.put(
                self._name,
                [json.dumps(content).encode()],
                only_if=only_if,
                metadata={_TOKEN: self._token},
                patient=patient,
            )
            self._renewed = started


def is_held(found: StoredObject) -> bool:
    """Whether the owner of a lease renews it."""
    return found.age < LEASE_SECONDS


def read_owner(content: bytes | None) -> str:
    """Who holds a lease, for people; ``content`` is None if nobody does any more.

    The lock of a local folder that was copied into the bucket holds a text, or nothing.
    """
    if not content:
        return "another process"
    if not content.startswith(b"{"):
        return content.decode(errors="replace")
    return str(json.loads(content)["owner"])
