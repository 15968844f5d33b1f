"""What the pages do: one method for each thing that a reader can ask for.

What is written goes through the group commit and is on the disk when the answer comes; what is read is read in a
thread of its own, so that nobody waits for another's page.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from anyio import to_thread

from newsletter import choosing, joining, personal_data, wiring

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    from newsletter.choosing import Choices
    from newsletter.config import Settings
    from newsletter.model import Edition
    from newsletter.personal_data import Erased

T = TypeVar("T")
A = TypeVar("A")

LINK = "link in a mail"  # the source of what is done with one; the form is the page
ONE_CLICK = "one click"
CONFIRM, LEAVE, PREFERENCES = "/c", "/u", "/p"


class Store(Protocol):
    """The database, as far as pages know it."""

    def write(self, fn: Callable[[Any], T]) -> Future[T]: ...

    def write_one_of(self, many: Callable[[Any, list[A]], Mapping[A, T]], item: A) -> Future[T]: ...

    def read(self, fn: Callable[[Any], T]) -> T: ...


def _now() -> datetime:
    return datetime.now(UTC)


class Deeds:
    """Every method may raise ``DatabaseError``. What a link of one use does is None or False once it was used."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        clear_up: Callable[[Erased], object],
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._store, self._settings, self._clear_up, self.clock = store, settings, clear_up, clock
        self._secret = settings.address_key
        self.consent = wiring.texts(settings).get("join.consent", publication=settings.newsletter.full_name)
        self._wording = joining.Wording.of(self.consent, settings.newsletter.language)

    # Signing up

    async def sign_up(
        self, address: str, *, name: str, list: str, form: str, source: str, network: str
    ) -> None:
        """Asks for a letter. Whether there will be one, nobody is told; a name that can't be one is left out."""
        try:
            name = joining.tidy_name(name)
        except ValueError:
            name = ""
        wish = joining.SignUp(address=address, list=list, name=name, form=form, source=source)
        await self._write(
            joining.ask,
            wish,
            address_key=self._secret,
            network=network,
            limits=self._settings.web.network_limit,
            wording=self._wording,
        )

    async def confirm(self, subscription: int, expires: datetime) -> bool:
        """False if there is nobody to confirm any more."""
        found = await self._write(
            joining.confirm, subscription, expires=expires, form=CONFIRM, source=LINK, wording=self._wording
        )
        return found is not joining.Outcome.GONE

    # Leaving and choosing

    async def standing(self, subscription: int) -> Choices | None:
        """None for whoever was never there."""
        return await self._read(choosing.standing, subscription)

    async def leave(self, subscription: int, *, one_click: bool) -> None:
        """At once."""
        many = self._leave_by_one_click if one_click else self._leave_by_page
        await asyncio.wrap_future(self._store.write_one_of(many, subscription))

    def _leave_by_one_click(self, conn: Any, subscriptions: Sequence[int]) -> Mapping[int, str]:
        return choosing.leave_many(conn, subscriptions, source=LINK, form=ONE_CLICK, now=self.clock())

    def _leave_by_page(self, conn: Any, subscriptions: Sequence[int]) -> Mapping[int, str]:
        return choosing.leave_many(conn, subscriptions, source=LINK, form=LEAVE, now=self.clock())

    async def leave_list(self, subscription: int, name: str) -> None:
        """Another list of the same person's."""
        await self._write(choosing.leave_list, subscription, name, source=LINK, form=PREFERENCES)

    async def join_list(self, subscription: int, name: str) -> bool:
        """Asks for a letter that asks. False if there were too many in a short time."""
        return await self._write(
            choosing.join_list,
            subscription,
            name,
            secret=self._secret,
            wording=self._wording,
            source=LINK,
            form=PREFERENCES,
        )

    async def pause(self, subscription: int, months: int, form: str) -> datetime | None:
        """Until when; None for whoever is not on the list."""
        return await self._write(choosing.pause, subscription, months, source=LINK, form=form)

    async def resume(self, subscription: int) -> None:
        """Ends a pause."""
        await self._write(choosing.resume, subscription, source=LINK, form=PREFERENCES)

    async def choose_edition(self, subscription: int, edition: Edition, form: str) -> bool:
        """False if nobody is there to send it to."""
        return await self._write(choosing.choose_edition, subscription, edition, source=LINK, form=form)

    # One's own data

    async def ask_access(self, subscription: int) -> bool:
        """A letter with a link to the address that we have. False if there were too many in a short time."""
        return await self._write(personal_data.ask_access, subscription, secret=self._secret)

    async def access_is_open(self, subscription: int, expires: datetime) -> bool:
        """Whether the link can still be used; using it is another thing."""
        now = self.clock()
        return await self._read(partial(personal_data.usable, now=now), subscription, expires)

    async def download(self, subscription: int, expires: datetime) -> Mapping[str, Any] | None:
        """All that we hold."""
        return await self._write(personal_data.download, subscription, expires)

    async def ask_change(self, subscription: int, expires: datetime, address: str) -> bool:
        """A letter to the new address, which asks."""
        return await self._write(
            personal_data.ask_change, subscription, expires, address, secret=self._secret
        )

    async def change(self, subscription: int, expires: datetime) -> str:
        """The new address is theirs. What became of it: one of ``personal_data``'s words."""
        return await self._write(personal_data.change, subscription, expires, source=LINK, form=CONFIRM)

    async def refuse_change(self, subscription: int, expires: datetime) -> str:
        """Somebody at the new address says no. What became of it: one of ``personal_data``'s words."""
        return await self._write(
            personal_data.refuse_change, subscription, expires, source=LINK, form=ONE_CLICK
        )

    async def erase(self, subscription: int, expires: datetime) -> bool:
        """For good, and the files of their mails too."""
        erased = await self._write(personal_data.erase_by_link, subscription, expires)
        if erased is not None:
            await to_thread.run_sync(self._clear_up, erased)
        return erased is not None

    # For machines

    async def look(self) -> None:
        """Nothing, if the database can be read."""
        await self._read(choosing.standing, 0)

    async def tallies(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """Letters and subscriptions by state."""
        return await self._read(wiring.tallies)

    async def _write(self, fn: Callable[..., T], *args: object, **more: object) -> T:
        now = self.clock()
        return await asyncio.wrap_future(self._store.write(lambda conn: fn(conn, *args, now=now, **more)))

    async def _read(self, fn: Callable[..., T], *args: object) -> T:
        return await to_thread.run_sync(self._store.read, lambda conn: fn(conn, *args))
