"""A vocoder in the shape in which a host calls its own: one file a host, none of which imports it.

`Vocoder.as_module(host)` makes an `nn.Module` with the host's axis order, lengths, attributes and names.
"""

from importlib import import_module

from gansound.adapters.host_module import HostModule, Voice

__all__ = ["HOSTS", "HostModule", "Voice", "as_module"]

HOSTS = ("transformers", "torchaudio", "espnet", "vocos", "coqui", "nemo", "matcha", "vits")


def as_module(vocoder: Voice, host: str) -> HostModule:
    """The vocoder as a host's module.

    Raises:
        ValueError: no such host.
    """
    if host not in HOSTS:
        raise ValueError(f"got host {host!r}, expected one of {', '.join(HOSTS)}")
    made: HostModule = import_module(f"gansound.adapters.{host}").Module(vocoder)
    return made
