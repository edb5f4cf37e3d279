"""Import every module of the four packages, and print where they came from."""

import importlib
import pkgutil

for package_name in ("riverdelta", "riverdelta_workers", "riverdelta_gateway", "riverdelta_cli"):
    package = importlib.import_module(package_name)
    print(package.__file__)  # noqa: T201  the test reads it
    for module in pkgutil.walk_packages(package.__path__, f"{package_name}."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
