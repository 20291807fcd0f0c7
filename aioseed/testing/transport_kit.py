"""What every transport must do, as checks that its author can run: ours and a third party's pass the same ones.

::

    @asynccontextmanager
    async def make():
        yield MyTransport(), "my://127.0.0.1:0"

    @pytest.mark.parametrize("check", TRANSPORT_CHECKS.values(), ids=TRANSPORT_CHECKS)
    async def test_my_transport(check):
        await check(make)

or ``await check_transport(make)`` for all of them. `make` gives a fresh transport and a URL to listen at, with port 0
where the network has ports. A check raises AssertionError with the promise that is broken; it also fails when a task is
left behind or after 15 seconds. The promises are those of `aioseed.transport.channel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aioseed.testing import _transport_doors as doors
from aioseed.testing import _transport_endings as endings
from aioseed.testing import _transport_messages as messages
from aioseed.testing._transport_harness import MAX_MESSAGE_BYTES, Check, Make

__all__ = ["MAX_MESSAGE_BYTES", "TRANSPORT_CHECKS", "Check", "Make", "check_transport"]

TRANSPORT_CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "keeps_order_and_delivers_once": messages.keeps_order_and_delivers_once,
        "carries_every_legal_size": messages.carries_every_legal_size,
        "refuses_larger_messages": messages.refuses_larger_messages,
        "keeps_channels_apart": messages.keeps_channels_apart,
        "cancelled_receive_loses_nothing": messages.cancelled_receive_loses_nothing,
        "hands_every_message_over": messages.hands_every_message_over,
        "hands_large_messages_over": messages.hands_large_messages_over,
        "refuses_a_second_receiver": messages.refuses_a_second_receiver,
        "slow_reader_is_cut": messages.slow_reader_is_cut,
        "send_waits_for_a_slow_reader": messages.send_waits_for_a_slow_reader,
        "close_delivers_what_was_sent": endings.close_delivers_what_was_sent,
        "close_is_final_and_idempotent": endings.close_is_final_and_idempotent,
        "peers_have_addresses": endings.peers_have_addresses,
        "cancelled_close_still_ends": endings.cancelled_close_still_ends,
        "listener_close_ends_channels": endings.listener_close_ends_channels,
        "dial_to_nobody_fails": endings.dial_to_nobody_fails,
        "dial_to_the_mute_fails": endings.dial_to_the_mute_fails,
        "address_in_use_is_refused": endings.address_in_use_is_refused,
        "token_is_required": endings.token_is_required,
        "credential_is_that_of_the_token": endings.credential_is_that_of_the_token,
        "channels_are_bounded": doors.channels_are_bounded,
        "refusals_are_reported": doors.refusals_are_reported,
        "tls_is_kept": doors.tls_is_kept,
        "silence_is_cut": endings.silence_is_cut,
        "broken_connection_is_told": endings.broken_connection_is_told,
        "handler_failure_stays_alone": endings.handler_failure_stays_alone,
    }
)
"""Every check by name."""


async def check_transport(make: Make) -> None:
    """Run every check, one after the other.

    Raises:
        AssertionError: The transport breaks a promise; the first one ends the run.
    """
    for check in TRANSPORT_CHECKS.values():
        await check(make)
