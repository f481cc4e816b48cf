"""Images as they come: a folder that a camera writes to, or the camera itself."""

from .arrivals import Arrivals
from .current import CurrentIndex
from .ledger import Ledger
from .live import Span, judge_live
from .place import check_place
from .record import Files, Recorder
from .tell import tell_rows
from .watch import Pace, Watch, source_of

__all__ = [
    "Arrivals",
    "CurrentIndex",
    "Files",
    "Ledger",
    "Pace",
    "Recorder",
    "Span",
    "Watch",
    "check_place",
    "judge_live",
    "source_of",
    "tell_rows",
]
