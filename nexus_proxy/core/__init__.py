"""The pure core: no asyncio, no aiohttp, no clock, no files. Everything in here is a function of its arguments."""
