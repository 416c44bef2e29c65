"""The parameters of a chat completion: which are checked, and which are refused.

Strategy: one table from a name to its check; a name that is not in it is forwarded untouched, and so is a range that
only the provider knows. Refused are the parameters that change what the provider charges, for all providers or for one.
"""

from collections.abc import Callable
from typing import Any, Final

from nexus_proxy.errors import InvalidParameter, UnsupportedParameter

MESSAGES_MAX: Final = 10_000
MODEL_CHARS_MAX: Final = 256
STOP_MAX: Final = 16
INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1

# Parameters that change the provider's price, its prompt or its model behind our back, with the values that do not.
_PRICE_CHANGING: dict[str, tuple[Any, ...]] = {
    "enable_search": (False,),
    "search_options": (False,),
    "web_search": (False,),
    "web_search_options": (False,),
    "enable_enhancement": (False,),
    "force_search_enhancement": (False,),
    "enable_deep_search": (False,),
    "enable_code_interpreter": (False,),
    "plugins": (False,),
    "models": (False,),
    "modalities": (False, ["text"]),
    "service_tier": (),  # whatever it says: what `auto` costs, the provider decides
}
_MAY_CHANGE_PRICE: Final = frozenset(_PRICE_CHANGING) | {"tools", "functions"}


def check_parameters(body: dict[str, Any]) -> None:
    """Check a body without nulls. InvalidParameter, UnsupportedParameter; `param` names the parameter."""
    if "model" not in body:
        raise InvalidParameter("'model' is required.", param="model")
    if "messages" not in body:
        raise InvalidParameter("'messages' is required.", param="messages")
    for name, value in body.items():
        check = _CHECKS.get(name)
        if check is not None:
            check(name, value)
        elif name not in _PRICE_CHANGING:
            _refuse_lookalike(name, KNOWN_PARAMETERS, name)
    if "max_tokens" in body and "max_completion_tokens" in body:
        raise InvalidParameter(
            "'max_tokens' and 'max_completion_tokens' are the same; send one.", param="max_completion_tokens"
        )
    if "stream_options" in body and not body.get("stream"):
        raise InvalidParameter("'stream_options' needs 'stream' to be true.", param="stream_options")


def refuse_price_changes(body: dict[str, Any], allowed: frozenset[str]) -> None:
    """Refuse what changes the price, unless the model's entry prices and bounds it. UnsupportedParameter."""
    if _MAY_CHANGE_PRICE.isdisjoint(body):
        return
    for name in _PRICE_CHANGING.keys() & body.keys():
        value = body[name]
        # By type, too: 0 equals False.
        harmless = any(type(value) is type(other) and value == other for other in _PRICE_CHANGING[name])
        if not harmless and name not in allowed:
            raise UnsupportedParameter(f"'{name}' is not supported for this model.", param=name)
    for index, tool in enumerate(body.get("tools", ())):
        where = f"tools[{index}]"
        for name in tool:
            _refuse_lookalike(name, _TOOL_KEYS, where)
        kind, function = tool.get("type"), tool.get("function")
        if kind != "function" and not (isinstance(kind, str) and kind in allowed):
            raise UnsupportedParameter("Only tools of the type 'function' are supported.", param=f"{where}.type")
        if isinstance(function, dict):
            _refuse_builtin(function, f"{where}.function", allowed)
    for index, function in enumerate(body.get("functions", ())):
        _refuse_builtin(function, f"functions[{index}]", allowed)


def refuse_barred(body: dict[str, Any], barred: frozenset[str], allowed: frozenset[str]) -> None:
    """Refuse what one provider must not be sent, in whatever letters. UnsupportedParameter."""
    for name in body:
        if name.casefold() in barred and name not in allowed:
            raise UnsupportedParameter(f"'{name}' is not supported for this model.", param=name)


def _refuse_builtin(function: dict[str, Any], where: str, allowed: frozenset[str]) -> None:
    for key in function:
        _refuse_lookalike(key, _TOOL_KEYS, where)
    name = function.get("name")
    if isinstance(name, str) and name.startswith("$") and name not in allowed:
        raise UnsupportedParameter("Built-in functions are not supported.", param=f"{where}.name")


def _refuse_lookalike(name: str, known: frozenset[str], param: str) -> None:
    """Refuse `N` beside `n`: a provider's decoder may ignore case (Go's does), and take what we did not check."""
    if name not in known and name.casefold() in known:
        raise UnsupportedParameter("A parameter is known only in lower case.", param=param)


# --- one check per parameter ----------------------------------------------------------------------------------------

_Check = Callable[[str, Any], None]


def _wrong(param: str, expected: str) -> InvalidParameter:
    return InvalidParameter(f"'{param}' must be {expected}.", param=param)


def _integer(low: int, high: int) -> _Check:
    def check(name: str, value: Any) -> None:
        if type(value) is not int or not low <= value <= high:  # a bool is an int to isinstance
            raise _wrong(name, f"an integer from {low} to {high}")

    return check


def _number(low: int, high: int) -> _Check:
    def check(name: str, value: Any) -> None:
        if type(value) not in (int, float) or not low <= value <= high:
            raise _wrong(name, f"a number from {low} to {high}")

    return check


def _boolean(name: str, value: Any) -> None:
    if type(value) is not bool:
        raise _wrong(name, "true or false")


def _logprobs(name: str, value: Any) -> None:
    if type(value) is not bool:
        _integer(0, 20)(name, value)


def _best_of(name: str, value: Any) -> None:
    _integer(1, INT32_MAX)(name, value)
    if value != 1:
        raise UnsupportedParameter("'best_of' above 1 is not supported.", param=name)


def _model(name: str, value: Any) -> None:
    if type(value) is not str or not 0 < len(value) <= MODEL_CHARS_MAX or not value.isprintable():
        raise _wrong(name, f"a model id of 1 to {MODEL_CHARS_MAX} printable characters")


def _messages(name: str, value: Any) -> None:
    if type(value) is not list or not 0 < len(value) <= MESSAGES_MAX:
        raise _wrong(name, f"an array of 1 to {MESSAGES_MAX} messages")
    for index, message in enumerate(value):
        if type(message) is not dict:
            raise _wrong(f"{name}[{index}]", "an object")
        role = message.get("role")
        if type(role) is not str or not role:
            raise _wrong(f"{name}[{index}].role", "a non-empty string")
        content = message.get("content")
        if content is None or type(content) is str:
            continue
        if type(content) is not list or any(type(part) is not dict for part in content):
            raise _wrong(f"{name}[{index}].content", "a string or an array of objects")


def _stop(name: str, value: Any) -> None:
    if type(value) is str:
        return
    if type(value) is not list or len(value) > STOP_MAX or any(type(item) is not str for item in value):
        raise _wrong(name, f"a string or an array of at most {STOP_MAX} strings")


def _stream_options(name: str, value: Any) -> None:
    if type(value) is not dict:
        raise _wrong(name, "an object")
    for key in value:
        _refuse_lookalike(key, _STREAM_OPTIONS, f"{name}.{key.casefold()}")
    asked = value.get("include_usage")
    if asked is not None and type(asked) is not bool:
        raise _wrong(f"{name}.include_usage", "true or false")


def _objects(name: str, value: Any) -> None:
    if type(value) is not list or any(type(item) is not dict for item in value):
        raise _wrong(name, "an array of objects")


def _no_nul(name: str, value: Any) -> None:
    texts = [*value, *value.values()] if type(value) is dict else [value]
    if any(type(text) is str and "\0" in text for text in texts):
        raise _wrong(name, "free of NUL characters")


_CHECKS: dict[str, _Check] = {
    "model": _model,
    "messages": _messages,
    "stream": _boolean,
    "stream_options": _stream_options,
    "temperature": _number(0, 2),
    "top_p": _number(0, 1),
    "frequency_penalty": _number(-2, 2),
    "presence_penalty": _number(-2, 2),
    "n": _integer(1, 128),
    "best_of": _best_of,
    "max_tokens": _integer(1, INT32_MAX),
    "max_completion_tokens": _integer(1, INT32_MAX),
    "thinking_budget": _integer(0, INT32_MAX),
    "logprobs": _logprobs,
    "top_logprobs": _integer(0, 20),
    "seed": _integer(-INT64_MAX - 1, INT64_MAX),
    "stop": _stop,
    "tools": _objects,
    "functions": _objects,
    "user": _no_nul,
    "metadata": _no_nul,
}
# What means something here: under no other name may anything be sent as one of these.
KNOWN_PARAMETERS: Final = frozenset(_CHECKS) | frozenset(_PRICE_CHANGING)
_TOOL_KEYS: Final = frozenset({"type", "function", "name"})
_STREAM_OPTIONS: Final = frozenset({"include_usage"})
