"""Pulls and pushes with the ORAS client for Python.

    oras_client.py pull REFERENCE FOLDER
    oras_client.py push REFERENCE CONFIG:TYPE FILE:TYPE...

ORAS_USER and ORAS_PASS are a login, and ORAS_CA is the PEM file of the registry's CA; without it the
registry speaks plain HTTP.
"""

import os
import sys

import oras.provider

verb, reference, *rest = sys.argv[1:]
ca = os.environ.get("ORAS_CA")
registry = oras.provider.Registry(
    insecure=ca is None,
    tls_verify=ca or True,
    auth_backend="basic" if "ORAS_USER" in os.environ else "token",
)
if verb == "pull":
    [folder] = rest
    for path in registry.pull(target=reference, outdir=folder):
        print(path)
elif verb == "push":
    config, *files = rest
    registry.push(target=reference, manifest_config=config, files=files, disable_path_validation=True)
else:
    sys.exit(__doc__)
