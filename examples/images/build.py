#!/usr/bin/env python3
"""Writes the example image, an OCI image layout, from a prebuilt filter.

The image has the shape that `wasme push` gave to a registry, after the WASM OCI
image specification v0.0.0: the runtime config is both the manifest's config and
its first layer, and the module is its second layer. The same filter gives the
same bytes. Run it after filters/build.sh has built add-header.
"""

import hashlib
import json
import pathlib
import shutil

HERE = pathlib.Path(__file__).resolve().parent
MODULE = HERE.parent.parent / "filters" / "prebuilt" / "add-header.wasm"
LAYOUT = HERE / "add-header"
TAG = "1.0"

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.module.wasm.config.v1+json"
CONTENT_TYPE = "application/vnd.module.wasm.content.layer.v1+wasm"

RUNTIME_CONFIG = {
    "type": "envoy_proxy",
    "abiVersions": ["v0.2.1"],
    "config": {"root_ids": ["add_request_header", "add_response_header"]},
}


def compact(value):
    return json.dumps(value, separators=(",", ":")).encode()


def store(content, media_type, annotations=None):
    """Writes a blob into the layout and gives the descriptor of it."""
    digest = hashlib.sha256(content).hexdigest()
    (LAYOUT / "blobs" / "sha256" / digest).write_bytes(content)
    descriptor = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}
    if annotations:
        descriptor["annotations"] = annotations
    return descriptor


def main():
    module = MODULE.read_bytes()
    shutil.rmtree(LAYOUT, ignore_errors=True)
    (LAYOUT / "blobs" / "sha256").mkdir(parents=True)

    title = "org.opencontainers.image.title"
    config = store(compact(RUNTIME_CONFIG), CONFIG_TYPE, {title: "runtime-config.json"})
    content = store(module, CONTENT_TYPE, {title: "filter.wasm"})
    # No `mediaType` of its own: the manifests of that time had none.
    manifest = {
        "schemaVersion": 2,
        "config": config,
        "layers": [config, content],
        "annotations": {
            "module.wasm.runtime/abi_version": ",".join(RUNTIME_CONFIG["abiVersions"]),
            "module.wasm.runtime/type": RUNTIME_CONFIG["type"],
        },
    }
    reference = {"org.opencontainers.image.ref.name": TAG}
    index = {
        "schemaVersion": 2,
        "manifests": [store(compact(manifest), MANIFEST_TYPE, reference)],
    }
    (LAYOUT / "index.json").write_bytes(compact(index))
    (LAYOUT / "oci-layout").write_bytes(compact({"imageLayoutVersion": "1.0.0"}))
    print(f"{LAYOUT.relative_to(HERE.parent.parent)}: {index['manifests'][0]['digest']}")


if __name__ == "__main__":
    main()
