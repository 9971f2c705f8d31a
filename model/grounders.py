"""The grounders by the names that `model.grounder` takes and a checkpoint's config.json holds."""

from model.bridge_grounder import BridgeGrounder
from model.grounder import Grounder
from model.interleaved_grounder import InterleavedGrounder
from model.text_grounder import TextGrounder

GROUNDERS: dict[str, type[Grounder]] = {
    "bridge": BridgeGrounder,
    "interleaved": InterleavedGrounder,
    "text": TextGrounder,
}


def grounder_class(name: str) -> type[Grounder]:
    """Raises ValueError for a name that is not in GROUNDERS, naming those that are."""
    if name not in GROUNDERS:
        raise ValueError(f"model.grounder: expected one of {', '.join(GROUNDERS)}; got {name!r}")
    return GROUNDERS[name]
