"""Records: frozen dataclasses in all but the making. Importing `dataclasses` takes longer than the rest of this package (it needs
inspect, ast, dis ...), so that is left until somebody asks for it."""

from __future__ import annotations

from operator import attrgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_):
        return lambda kind: kind


class _OfDataclass:
    """An attribute that the real dataclass with the same fields has, which is made when it is first asked for."""

    def __init__(self, take: Callable[[type], Any]) -> None:
        self._take = take

    def __get__(self, record: object, kind: Any) -> Any:
        import dataclasses

        if "_dataclass" not in vars(kind):
            fields = [
                (name, annotation, dataclasses.field(default=kind._defaults.get(name, dataclasses.MISSING)))
                for name, annotation in kind._fields.items()
            ]
            kind._dataclass = dataclasses.make_dataclass(kind.__name__, fields, frozen=True)
        return self._take(kind._dataclass)


def _signature(kind: type) -> Any:
    from inspect import signature

    return signature(kind)


@dataclass_transform(frozen_default=True)
class Record:
    """A value with named fields that never change: the annotations of a subclass, with its class attributes as defaults. Two are
    equal when they are of one class and their fields are; __post_init__() raises what speaks against them."""

    _fields: dict[str, Any] = {}  # to their annotations
    __match_args__: tuple[str, ...] = ()
    _defaults: dict[str, Any] = {}
    # For inspect.signature(), and so that dataclasses.replace(), asdict() and fields() take a record for one of theirs.
    __signature__ = _OfDataclass(_signature)
    __dataclass_fields__ = _OfDataclass(attrgetter("__dataclass_fields__"))

    def __init_subclass__(cls) -> None:
        cls._fields = {**cls._fields, **cls.__annotations__}
        cls._defaults = {name: getattr(cls, name) for name in cls._fields if hasattr(cls, name)}
        cls.__match_args__ = tuple(cls._fields)  # type: ignore[misc]

    def __init__(self, *args: Any, **options: Any) -> None:
        name = type(self).__name__
        if len(args) > len(self._fields):
            raise TypeError(f"{name}() takes {len(self._fields)} arguments, {len(args)} were given")
        given = dict(zip(self._fields, args))
        for option in options:
            if option not in self._fields or option in given:
                raise TypeError(f"{name}() got {'another' if option in given else 'an unknown'} argument {option!r}")
        values = {**self._defaults, **given, **options}
        missing = [field for field in self._fields if field not in values]
        if missing:
            raise TypeError(f"{name}() needs the arguments {', '.join(missing)}")
        self.__dict__.update((field, values[field]) for field in self._fields)
        self.__post_init__()

    def __post_init__(self) -> None:
        pass

    def __replace__(self, **changes: Any) -> Any:
        """For copy.replace()."""
        return type(self)(**{**self.__dict__, **changes})

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"can't set {name}: a {type(self).__name__} never changes; see copy.replace()")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"can't delete {name}: a {type(self).__name__} never changes")

    def __eq__(self, other: object) -> bool:
        return self.__dict__ == other.__dict__ if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"
