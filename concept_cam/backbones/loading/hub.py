"""Files of the Hugging Face hub: from the cache where they are there, else downloaded; at once with a clear message where there is no
network.
"""

from __future__ import annotations

import socket
import urllib.parse
import urllib.request
from pathlib import Path

from concept_cam.core.errors import ModelError

__all__ = ["cached", "download_file", "no_network", "reachable"]


def reachable() -> bool:
    """Tells whether the hub can be reached at all, at once.

    Its own time-out (``HF_HUB_ETAG_TIMEOUT``) bounds one attempt; without a network its client makes six, which takes 24 s.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    if urllib.request.getproxies():
        return True
    host = urllib.parse.urlparse(constants.ENDPOINT).hostname or "huggingface.co"
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def cached(repository: str, file: str) -> Path | None:
    """Returns a file of the hub that is on this machine."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, file)
    return Path(found) if isinstance(found, str) else None


def no_network(name: str, repository: str, files: str) -> ModelError:
    """Makes the error that says which files to bring from where."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}"
    return ModelError(
        f"{name} is not on this machine and the hub cannot be reached. On a machine with network, download {files} from "
        f"https://huggingface.co/{repository}, put them into a folder, and name the model 'local-dir:FOLDER'; or copy that machine's "
        f"cache folder to {folder}."
    )


def download_file(repository: str, file: str, name: str, files: str) -> Path | None:
    """Returns a file of the hub, from the cache if it is there; ``None`` when the repository does not have it.

    Args:
        repository: ``ORGANISATION/NAME``.
        file: Name of the file in it.
        name: Name of the model, for messages.
        files: All files that the model needs, for messages.

    Raises:
        ModelError: No such repository, or no network.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    found = cached(repository, file)
    if found is not None:
        return found
    if not reachable():
        raise no_network(name, repository, files)
    try:
        return Path(hf_hub_download(repository, file))
    except RepositoryNotFoundError as error:
        raise ModelError(f"there is no model {repository!r} on the hub, or it needs a login (model {name!r}).") from error
    except LocalEntryNotFoundError as error:
        raise no_network(name, repository, files) from error
    except EntryNotFoundError:
        return None
    except (HfHubHTTPError, OSError) as error:
        raise no_network(name, repository, files) from error
