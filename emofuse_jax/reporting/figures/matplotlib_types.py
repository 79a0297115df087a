"""Types of Matplotlib for annotations; Matplotlib itself is imported only when a picture is drawn."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Axes
    from matplotlib.colors import Colormap as Colormap
    from matplotlib.figure import Figure as Figure
    from matplotlib.typing import RcKeyType as RcKey
else:
    Axes = Colormap = Figure = object
    RcKey = str
