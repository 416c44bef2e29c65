"""Every key under which something is kept on an aiohttp application."""

from aiohttp import web

from nexus_proxy.request.services import Services

SERVICES = web.AppKey("SERVICES", Services)
