"""The verbs over HTTP, for the Unix socket only: whoever may open it may do everything."""

from typing import Final

import orjson
from aiohttp import web
from pydantic import ConfigDict, ValidationError, validate_call

from nexus_proxy.admin.verbs import Admin
from nexus_proxy.errors import LedgerError, LedgerUnavailable, Refused

ARGUMENTS_BYTES_MAX: Final = 64 * 1024  # a list of models is the longest that a verb takes


def application(admin: Admin) -> web.Application:
    """Serve `POST /{verb}`: a JSON object of arguments in, the verb's value out, `{"error": text}` if it did not work.

    409 refused · 400 wrong arguments · 404 no such verb · 503 the ledger cannot do it. For the Unix socket only.
    """
    # strict: a JSON true is no number, and a number no text
    checked = {name: validate_call(config=ConfigDict(strict=True))(verb) for name, verb in admin.verbs().items()}

    async def handle(request: web.Request) -> web.Response:
        verb = checked.get(request.match_info["verb"])
        if verb is None:
            return _answer(404, {"error": f"no verb {request.match_info['verb']!r}; is the server of another version?"})
        try:
            arguments = orjson.loads(await request.read() or b"{}")
        except orjson.JSONDecodeError as error:
            return _answer(400, {"error": f"the arguments are not JSON: {error}"})
        if not isinstance(arguments, dict):
            return _answer(400, {"error": "the arguments are not a JSON object"})
        try:
            return _answer(200, await verb(**arguments))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            return _answer(400, {"error": f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"})
        except Refused as error:
            return _answer(409, {"error": str(error)})
        except LedgerError as error:
            return _answer(503, {"error": str(error)})
        except LedgerUnavailable as error:
            return _answer(
                503, {"error": f"{error.message} It may have been done all the same: look before asking again."}
            )

    app = web.Application(client_max_size=ARGUMENTS_BYTES_MAX)
    app.router.add_post("/{verb}", handle)
    return app


def _answer(status: int, value: object) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json")
