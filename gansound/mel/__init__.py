"""The mel convention as data, and the front end that follows it.

A vocoder understands one convention only, and conventions differ in ways that can't be seen: the mel scale, the
framing, the base of the logarithm, its floor. `MelSpec` holds all of it; `presets()` names the conventions of the
projects in this field, each read from that project's own code.
"""

from gansound.mel.front_end import MelFrontEnd
from gansound.mel.presets import presets
from gansound.mel.spec import MelSpec

__all__ = ["MelFrontEnd", "MelSpec", "presets"]
