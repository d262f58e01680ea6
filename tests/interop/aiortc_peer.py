"""The peer of the test `interop` that is made of aiortc. Speaks as `main.rs` tells, a line at a time:
told on its standard input, telling on its standard output. It ends when its input does."""

import asyncio
import json
import sys

import aioice.ice
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

COUNT = 1_000
LARGEST = 64 * 1_024
OURS, THEIRS = 101, 0
# Bytes that wait in the channel before we do.
PLENTY = 1_024 * 1_024

# All there is to try on this host, and what aioice leaves out.
aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


def message(n, whose):
    """Message `n`; the same as in `messages.rs`."""
    nth = 383 * n % COUNT
    size = 1 + nth**3 * (LARGEST - 1) // (COUNT - 1) ** 3
    block = bytes((whose + 7 * n + 13 * i) % 251 for i in range(251))
    return (block * (size // 251 + 1))[:size]


def tell(kind, text=""):
    print(json.dumps([kind, text]), flush=True)


class Peer:
    def __init__(self):
        # Without servers: aiortc would ask one that is far away.
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.connection.on("datachannel", self.use_theirs)
        self.heard = 0
        self.drained = asyncio.Event()
        self.description = None
        self.candidates = []
        self.talking = None

    async def told(self, kind, text):
        if kind == "make":
            self.use(self.connection.createDataChannel("theirs", **json.loads(text)))
            await self.describe(await self.connection.createOffer())
        elif kind in ("offer", "answer"):
            self.description = RTCSessionDescription(text, kind)
        elif kind == "candidate" and text:
            self.candidates.append(text)
        elif kind == "candidate":
            await self.hear_description()
        elif kind == "close":
            await self.connection.close()
        else:
            raise ValueError(kind)

    async def hear_description(self):
        # One without a candidate is given up by aioice before the first can be added.
        heard = self.description
        for candidate in self.candidates:
            heard.sdp += f"a={candidate}\r\n"
        heard.sdp += "a=end-of-candidates\r\n"
        await self.connection.setRemoteDescription(heard)
        if heard.type == "offer":
            await self.describe(await self.connection.createAnswer())

    async def describe(self, description):
        await self.connection.setLocalDescription(description)
        # With all its candidates: there is no trickling.
        made = self.connection.localDescription
        tell(made.type, made.sdp)

    def use_theirs(self, channel):
        limits = (channel.maxRetransmits, channel.maxPacketLifeTime)
        if not channel.ordered or limits != (None, None):
            tell("wrong", "the channel is not reliable and in order")
        self.use(channel)

    def use(self, channel):
        channel.bufferedAmountLowThreshold = PLENTY
        channel.on("bufferedamountlow", self.drained.set)
        channel.on("message", self.hear)
        channel.on("close", lambda: tell("closed"))

        def talk():
            self.talking = asyncio.ensure_future(self.talk(channel))
            self.talking.add_done_callback(failed)

        if channel.readyState == "open":
            talk()
        else:
            channel.on("open", talk)

    async def talk(self, channel):
        for n in range(COUNT):
            while channel.bufferedAmount > PLENTY:
                self.drained.clear()
                await self.drained.wait()
            channel.send(message(n, OURS))

    def hear(self, heard):
        if heard != message(self.heard, THEIRS):
            tell("wrong", f"message {self.heard} is another: {len(heard)} bytes")
        self.heard += 1
        if self.heard == COUNT:
            tell("heard")


def failed(task):
    if not task.cancelled() and task.exception():
        tell("wrong", repr(task.exception()))


async def main():
    peer = Peer()
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            await peer.told(*json.loads(line))
        except Exception as error:
            tell("wrong", repr(error))
    await peer.connection.close()


asyncio.run(main())
