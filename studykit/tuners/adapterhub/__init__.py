"""Files of the `adapters` library: adapters, fusions and setups are read into, and written from, the tuner.

`format` holds the library's configurations and file layout, `keys` the names of its tensors, and `files` moves weights
between a model and files.
"""

from studykit.tuners.adapterhub.files import (
    load_adapter,
    load_fusion,
    load_setup,
    save_adapter,
    save_fusion,
    save_setup,
)

__all__ = ["load_adapter", "load_fusion", "load_setup", "save_adapter", "save_fusion", "save_setup"]
