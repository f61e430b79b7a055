"""One folder per published system."""

import perception  # noqa: F401  (makes `import mmcv.ops` work)
